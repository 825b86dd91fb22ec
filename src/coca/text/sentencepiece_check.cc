// SPDX-License-Identifier: Apache-2.0
#include "coca/text/sentencepiece_check.h"

#include <cstdint>
#include <functional>
#include <vector>

#include "coca/base/count.h"
#include "coca/base/error.h"

namespace coca::text {

namespace {

// Fields of ModelProto, NormalizerSpec and TrainerSpec (sentencepiece_model.proto), and a value of the last one's.
constexpr uint32_t kTrainer = 2, kNormalizer = 3, kDenormalizer = 5, kName = 1, kCharsMap = 2, kModelType = 3, kBpe = 2;

// The fields of one message of protocol buffers.
class Message {
 public:
  Message(std::string_view bytes, std::string_view origin) : rest_(bytes), origin_(origin) {}

  // Hands out the fields of length and content, and the numbers; skips the others.
  void for_each(
      const std::function<void(uint32_t field, std::string_view content)>& visit,
      const std::function<void(uint32_t field, uint64_t value)>& visit_number = [](uint32_t, uint64_t) {}) {
    while (!rest_.empty()) {
      const auto tag = static_cast<uint32_t>(number());
      switch (tag & 7) {
        case 0: visit_number(tag >> 3, number()); break;
        case 1: take(8); break;
        case 2: visit(tag >> 3, take(number())); break;
        case 5: take(4); break;
        default: fail(ErrorKind::kBadFile, "{}: not a sentencepiece model: a field of wire type {}", origin_, tag & 7);
      }
    }
  }

 private:
  uint64_t number() {
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= shift < 64 ? uint64_t{byte & 0x7fu} << shift : 0;
      if (byte < 0x80) return value;
    }
    fail(ErrorKind::kBadFile, "{}: not a sentencepiece model: a number of more than 10 bytes", origin_);
  }
  std::string_view take(uint64_t bytes) {
    COCA_CHECK_AS(kBadFile, bytes <= rest_.size(), "{}: not a sentencepiece model: a field of {} where {} are left",
                  origin_, counted(bytes, "byte"), rest_.size());
    const std::string_view taken = rest_.substr(0, bytes);
    rest_.remove_prefix(bytes);
    return taken;
  }

  std::string_view rest_, origin_;
};

// The double array of the library Darts-clone.
class Trie {
 public:
  Trie(std::string_view units, size_t strings, std::string_view origin)
      : units_(units), strings_(strings), origin_(origin) {}

  // Visits every unit that some text can lead to.
  void check() const {
    std::vector<bool> seen(count());
    std::vector<uint32_t> open;
    const auto enter = [&](uint32_t at) {
      if (seen[at]) return;
      seen[at] = true;
      open.push_back(at);
    };
    require(count() > 0, 0);
    enter(0);
    while (!open.empty()) {
      const uint32_t at = open.back();
      open.pop_back();
      const uint32_t base = at ^ offset(unit(at));
      require((base | 0xffu) < count(), at);  // children lie at base ^ byte
      if (has_leaf(unit(at))) require((unit(base) & 0x7fffffffu) < strings_, at);
      for (uint32_t byte = 0; byte < 256; ++byte)
        if (label(unit(base ^ byte)) == byte) enter(base ^ byte);
    }
  }

 private:
  size_t count() const { return units_.size() / 4; }
  uint32_t unit(uint32_t i) const {
    uint32_t value = 0;
    for (size_t k = 4; k-- > 0;) value = value << 8 | static_cast<unsigned char>(units_[size_t{4} * i + k]);
    return value;
  }
  static uint32_t offset(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }
  static uint32_t label(uint32_t unit) { return unit & ((1u << 31) | 0xffu); }
  static bool has_leaf(uint32_t unit) { return (unit >> 8 & 1) == 1; }
  void require(bool holds, uint32_t at) const {
    COCA_CHECK_AS(kBadFile, holds, "{}: precompiled_charsmap: unit {} of {} leads out of the table or its {} of text",
                  origin_, at, count(), counted(strings_, "byte"));
  }

  std::string_view units_;
  size_t strings_;
  std::string_view origin_;
};

// u32 bytes of the table, the table, strings that end in zeros.
void check_charsmap(std::string_view map, std::string_view origin) {
  if (map.empty()) return;
  uint32_t bytes = 0;
  for (size_t k = 4; k-- > 0;) bytes = bytes << 8 | (k < map.size() ? static_cast<unsigned char>(map[k]) : 0);
  COCA_CHECK_AS(kBadFile, map.size() > 4 && bytes < map.size() - 4 && bytes % 4 == 0 && map.back() == '\0',
                "{}: precompiled_charsmap: a table of {} within {}, text behind it; expected a multiple of 4, less "
                "than the rest, and "
                "a zero at the end",
                origin, counted(bytes, "byte"), map.size());
  Trie(map.substr(4, bytes), map.size() - 4 - bytes, origin).check();
}

}  // namespace

void check_sentencepiece(std::string_view model, std::string_view origin) {
  Message(model, origin).for_each([&](uint32_t field, std::string_view content) {
    if (field != kNormalizer && field != kDenormalizer) return;
    Message(content, origin).for_each([&](uint32_t inner, std::string_view map) {
      if (inner == kCharsMap) check_charsmap(map, origin);
    });
  });
}

bool merges_plainly(std::string_view model, std::string_view origin) {
  bool bpe = false, known = false;
  Message(model, origin).for_each([&](uint32_t field, std::string_view content) {
    if (field == kTrainer)
      Message(content, origin)
          .for_each([](uint32_t, std::string_view) {},
                    [&](uint32_t inner, uint64_t value) { bpe |= inner == kModelType && value == kBpe; });
    if (field == kNormalizer)
      Message(content, origin).for_each([&](uint32_t inner, std::string_view name) {
        known |= inner == kName && (name == "identity" || name == "nfkc" || name == "nmt_nfkc" || name == "nfkc_cf" ||
                                    name == "nmt_nfkc_cf");
      });
  });
  return bpe && known;
}

}  // namespace coca::text

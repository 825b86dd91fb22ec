// coca/text/tokenizer_file.cc - see tokenizer_file.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/tokenizer_file.h"

#include <fmt/ranges.h>

#include <bit>
#include <cstring>
#include <random>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/io/json_file.h"

namespace coca::text {

namespace {
// Nobody can write a file whose tokens all meet in one slot. Nothing that is returned depends on it.
const uint64_t kSeed = std::random_device()();
}  // namespace

uint64_t hash_bytes(std::string_view text) {
  constexpr uint64_t kMultiplier = 0x9e3779b97f4a7c15;
  uint64_t hash = (text.size() ^ kSeed) * kMultiplier;
  const char* data = text.data();
  size_t left = text.size();
  const auto mix = [&](uint64_t word) {
    hash = (hash ^ word) * kMultiplier;
    hash ^= hash >> 32;
  };
  for (; left >= 8; data += 8, left -= 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    mix(word);
  }
  if (left > 0) {
    uint64_t word = 0;
    std::memcpy(&word, data, left);
    mix(word);
  }
  return hash * kMultiplier;
}

void Vocabulary::add(std::string_view token, int64_t id) {
  entries_.push_back({text_.size(), static_cast<uint32_t>(token.size()), static_cast<int32_t>(id)});
  text_ += token;
}

size_t Vocabulary::slot_of(std::string_view token) const {
  size_t slot = hash_bytes(token) >> (64 - std::bit_width(slots_.size() - 1));
  while (slots_[slot] >= 0 && text_of(slots_[slot]) != token) slot = (slot + 1) & (slots_.size() - 1);
  return slot;
}

void Vocabulary::index(std::string_view origin) {
  COCA_CHECK_AS(kBadFile, !entries_.empty(), "{}: model.vocab is empty", origin);
  slots_.assign(std::bit_ceil(entries_.size() * 2), -1);
  const int64_t most = static_cast<int64_t>(entries_.size()) * 16 + 1024;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const int32_t entry = static_cast<int32_t>(i), id = entries_[i].id;
    int32_t& slot = slots_[slot_of(text_of(entry))];
    COCA_CHECK_AS(kBadFile, slot < 0, "{}: model.vocab: token \"{}\" occurs twice", origin, text_of(entry));
    slot = entry;
    COCA_CHECK_AS(kBadFile, id < most, "{}: model.vocab: token \"{}\" has id {}; expected less than {} with {}", origin,
                  text_of(entry), id, most, counted(entries_.size(), "token"));
    if (id >= size()) by_id_.resize(static_cast<size_t>(id) + 1, -1);
    int32_t& place = by_id_[static_cast<size_t>(id)];
    COCA_CHECK_AS(kBadFile, place < 0, "{}: model.vocab: \"{}\" and \"{}\" both have id {}", origin, text_of(place),
                  text_of(entry), id);
    place = entry;
  }
}

std::optional<int32_t> Vocabulary::find(std::string_view token) const {
  const int32_t entry = slots_[slot_of(token)];
  if (entry < 0) return std::nullopt;
  return entries_[static_cast<size_t>(entry)].id;
}

void MergeList::add(std::string_view left, std::string_view right) {
  lengths_.emplace_back(static_cast<uint32_t>(left.size()), static_cast<uint32_t>(right.size()));
  text_ += left;
  text_ += right;
}

namespace {

using nlohmann::json;

constexpr size_t kMostValues = 1'000'000;  // outside vocab and merges; added tokens are seven each

// The parser's events. Methods return true: everything wrong is thrown.
class Reader {
 public:
  Reader(std::string_view origin, TokenizerFile& file) : origin_(origin), file_(file) {}

  bool null() { return value(nullptr); }
  bool boolean(bool v) { return value(v); }
  bool number_float(double v, const std::string&) { return value(v); }
  bool number_integer(int64_t v) { return value(v); }
  bool number_unsigned(uint64_t v) {
    if (part_ != Part::kVocab) return value(v);
    COCA_CHECK_AS(kBadFile, v <= INT32_MAX, "{}: model.vocab: token \"{}\" has id {}; expected at most {}", origin_,
                  key_, v, INT32_MAX);
    file_.vocabulary.add(key_, static_cast<int64_t>(v));
    return true;
  }
  bool string(std::string& v) {
    if (part_ != Part::kMerges) return value(std::move(v));
    if (depth_ == 1)
      add_line(v);
    else
      pair_.push_back(std::move(v));
    return true;
  }
  bool binary(json::binary_t&) { return false; }
  bool start_object(size_t) {
    if (part_ != Part::kRest) wrong("an object");
    if (stack_.size() == 2 && names_.back() == "model" && key_ == "vocab") {
      put(true);  // marks it, so that a second one is noticed
      part_ = Part::kVocab;
      return true;
    }
    return open(json::object());
  }
  bool end_object() {
    if (part_ == Part::kVocab)
      part_ = Part::kRest;
    else
      close();
    return true;
  }
  bool start_array(size_t) {
    if (part_ == Part::kVocab || depth_ == 2) wrong("an array");
    const bool in_model = stack_.size() == 2 && names_.back() == "model";
    if (part_ == Part::kMerges || (in_model && key_ == "merges")) {
      if (depth_++ == 0) put(true);
      part_ = Part::kMerges;
      return true;
    }
    COCA_CHECK_AS(kBadFile, !in_model || key_ != "vocab",
                  "{}: model.vocab: an array; expected an object of tokens and ids (only BPE models are supported)",
                  origin_);
    return open(json::array());
  }
  bool end_array() {
    if (part_ != Part::kMerges) {
      close();
      return true;
    }
    if (--depth_ == 1) add_pair();
    if (depth_ == 0) part_ = Part::kRest;
    return true;
  }
  bool key(std::string& v) {
    key_ = std::move(v);
    if (part_ == Part::kRest)
      COCA_CHECK_AS(kBadFile, !stack_.back()->contains(key_), "{}: key \"{}\" occurs twice in one object", origin_,
                    key_);
    return true;
  }
  bool parse_error(size_t at, const std::string&, const json::exception& error) {
    const std::string text = error.what();
    const size_t reason = text.find("] ");
    fail(ErrorKind::kBadFile, "{}: not valid JSON at byte {}: {}", origin_, at,
         reason == std::string::npos ? text : text.substr(reason + 2));
  }

 private:
  enum class Part { kRest, kVocab, kMerges };

  [[noreturn]] void wrong(std::string_view found) const {
    if (part_ == Part::kVocab)
      fail(ErrorKind::kBadFile, "{}: model.vocab: token \"{}\" has {}; expected a whole number from 0", origin_, key_,
           found);
    fail(ErrorKind::kBadFile, "{}: model.merges[{}]: {}; expected \"a b\" or [\"a\", \"b\"]", origin_,
         file_.merges.size(), found);
  }

  // A scalar, or a container that stays where it is put.
  json* put(json v) {
    COCA_CHECK_AS(kBadFile, ++values_ <= kMostValues, "{}: more than {} values beside vocab and merges", origin_,
                  kMostValues);
    if (stack_.empty()) {
      file_.rest = std::move(v);
      return &file_.rest;
    }
    json& parent = *stack_.back();
    if (parent.is_object()) return &(parent[key_] = std::move(v));
    parent.push_back(std::move(v));
    return &parent.back();
  }
  bool value(json v) {
    if (part_ != Part::kRest) wrong(v.is_string() ? "a string" : v.dump());
    put(std::move(v));
    return true;
  }
  bool open(json container) {
    COCA_CHECK_AS(kBadFile, stack_.size() < io::kMaxJsonDepth, "{}: JSON nested deeper than {} levels", origin_,
                  io::kMaxJsonDepth);
    names_.push_back(key_);
    stack_.push_back(put(std::move(container)));
    return true;
  }
  void close() {
    stack_.pop_back();
    names_.pop_back();
  }

  void add_line(std::string_view line) {
    if (line.starts_with("#version")) return;
    const size_t space = line.find(' ');
    const bool two = space != std::string_view::npos && line.find(' ', space + 1) == std::string_view::npos;
    if (!two || space == 0 || space + 1 == line.size()) wrong(fmt::format("\"{}\"", line));
    file_.merges.add(line.substr(0, space), line.substr(space + 1));
  }
  void add_pair() {
    if (pair_.size() != 2 || pair_[0].empty() || pair_[1].empty())
      wrong(fmt::format("[\"{}\"]", fmt::join(pair_, "\", \"")));
    file_.merges.add(pair_[0], pair_[1]);
    pair_.clear();
  }

  std::string_view origin_;
  TokenizerFile& file_;
  Part part_ = Part::kRest;
  std::vector<json*> stack_;
  std::vector<std::string> names_;  // the key of each container of the stack
  std::string key_;
  std::vector<std::string> pair_;
  int depth_ = 0;  // within model.merges
  size_t values_ = 0;
};

}  // namespace

TokenizerFile parse_tokenizer_json(std::string_view text, std::string_view origin) {
  COCA_CHECK_AS(kBadFile, text.size() <= 0x7fffffff, "{}: {}; expected at most {}", origin,
                counted(text.size(), "byte"), 0x7fffffff);
  TokenizerFile file;
  Reader reader(origin, file);
  json::sax_parse(text.begin(), text.end(), &reader);
  return file;
}

}  // namespace coca::text

// SPDX-License-Identifier: Apache-2.0
#include "coca/text/utf16.h"

#include <algorithm>
#include <cstdint>

#include "coca/text/unicode.h"

namespace coca::text {

namespace {

enum class Order { kLittle, kBig };
struct Encoding {
  std::string_view name, mark;
  size_t unit;
  Order order;
};
using std::string_view_literals::operator""sv;
// UTF-32LE's mark begins as UTF-16LE's does: the longer ones first.
constexpr Encoding kEncodings[] = {{"UTF-32LE", "\xff\xfe\0\0"sv, 4, Order::kLittle},
                                   {"UTF-32BE", "\0\0\xfe\xff"sv, 4, Order::kBig},
                                   {"UTF-16LE", "\xff\xfe"sv, 2, Order::kLittle},
                                   {"UTF-16BE", "\xfe\xff"sv, 2, Order::kBig}};

uint32_t unit_at(std::string_view bytes, size_t at, const Encoding& e) {
  uint32_t value = 0;
  for (size_t i = 0; i < e.unit; ++i)
    value = value << 8 | static_cast<unsigned char>(bytes[at + (e.order == Order::kBig ? i : e.unit - 1 - i)]);
  return value;
}

bool is_high(uint32_t unit) { return unit >= 0xd800 && unit < 0xdc00; }
bool is_low(uint32_t unit) { return unit >= 0xdc00 && unit < 0xe000; }

std::string decode(std::string_view bytes, const Encoding& e) {
  std::string out;
  out.reserve(bytes.size() / 2);
  size_t at = 0;
  for (; at + e.unit <= bytes.size(); at += e.unit) {
    uint32_t c = unit_at(bytes, at, e);
    if (e.unit == 2 && is_high(c) && at + 4 <= bytes.size() && is_low(unit_at(bytes, at + 2, e))) {
      c = 0x10000 + ((c - 0xd800) << 10) + (unit_at(bytes, at + 2, e) - 0xdc00);
      at += 2;
    }
    append_utf8(is_high(c) || is_low(c) || c > 0x10ffff ? 0xfffd : c, out);
  }
  if (at < bytes.size()) append_utf8(0xfffd, out);
  return out;
}

bool looks_like(std::string_view bytes, const Encoding& e) {
  constexpr size_t kSample = 4096, kLeast = 4;
  const size_t units = std::min(bytes.size(), kSample) / e.unit;
  if (bytes.size() % e.unit != 0 || units < kLeast) return false;
  size_t ascii = 0;
  for (size_t i = 0; i < units; ++i) {
    const uint32_t c = unit_at(bytes, i * e.unit, e);
    if ((c < 32 && (c < '\t' || c > '\r')) || c > 0x10ffff) return false;
    ascii += c < 128 ? 1 : 0;
  }
  return 2 * ascii >= units;
}

}  // namespace

std::optional<WideText> read_wide(std::string_view bytes) {
  for (const Encoding& e : kEncodings)
    if (bytes.starts_with(e.mark)) return WideText{decode(bytes.substr(e.mark.size()), e), e.name};
  if (bytes.substr(0, 4096).find('\0') == std::string_view::npos) return std::nullopt;
  for (const Encoding& e : kEncodings)
    if (looks_like(bytes, e)) return WideText{decode(bytes, e), e.name};
  return std::nullopt;
}

}  // namespace coca::text

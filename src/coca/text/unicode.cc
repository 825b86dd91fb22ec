// coca/text/unicode.cc - see unicode.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/unicode.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <new>

#include "coca/base/count.h"
#include "coca/base/error.h"

namespace coca::text {

namespace {

struct CodeRange {
  uint32_t first, last;
};
struct AddedRange {
  uint32_t first, last;
  char category[3];
};
struct LowerPair {
  uint32_t upper, lower;
};

#include "coca/text/unicode_tables.inc"

template <size_t N>
bool contains(const CodeRange (&ranges)[N], uint32_t c) {
  const auto* range =
      std::upper_bound(ranges, ranges + N, c, [](uint32_t x, const CodeRange& r) { return x < r.first; });
  return range != ranges && c <= range[-1].last;
}

const AddedRange* find_added(uint32_t c) {
  const auto* end = std::end(kAdded);
  const auto* range =
      std::upper_bound(std::begin(kAdded), end, c, [](uint32_t x, const AddedRange& r) { return x < r.first; });
  return range != kAdded && c <= range[-1].last ? range - 1 : nullptr;
}

// The first letter of the general category: 'L', 'N', 'P', ...
char major_category(uint32_t c) {
  if (const AddedRange* range = find_added(c)) return range->category[0];
  return utf8proc_category_string(static_cast<utf8proc_int32_t>(c))[0];
}

CharClass class_of(uint32_t c) {
  if (c == '\r' || c == '\n') return CharClass::kNewline;
  if (is_space(c)) return CharClass::kSpace;
  const char category = major_category(c);
  return category == 'L' ? CharClass::kLetter : category == 'N' ? CharClass::kNumber : CharClass::kOther;
}

// Characters that the package's normalization does not know.
bool is_inert(uint32_t c) { return contains(kNotNormalized, c) || find_added(c) != nullptr; }

// One form of a stretch without inert characters.
void append_normalized(std::string_view text, int options, std::string& out) {
  utf8proc_uint8_t* made = nullptr;
  const auto length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &made, static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(made, &std::free);
  if (length == UTF8PROC_ERROR_NOMEM) throw std::bad_alloc();
  COCA_CHECK_AS(kInternal, length >= 0, "normalization of {} failed: {}", counted(text.size(), "byte"),
                utf8proc_errmsg(length));
  out.append(reinterpret_cast<const char*>(made), static_cast<size_t>(length));
}

bool is_ascii(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

}  // namespace

CharTable::CharTable() {
  size_t made = 0;
  CharClass page[256];
  for (uint32_t high = 0; high < 0x1100; ++high) {
    for (uint32_t low = 0; low < 256; ++low) page[low] = class_of(high << 8 | low);
    size_t same = 0;
    while (same < made && std::memcmp(classes_[same], page, sizeof page) != 0) ++same;
    COCA_CHECK_AS(kInternal, same < 256, "character classes need more than 256 pages");
    if (same == made) std::memcpy(classes_[made++], page, sizeof page);
    pages_[high] = static_cast<uint8_t>(same);
  }
}

const CharTable& CharTable::get() {
  static const CharTable table;
  return table;
}

void append_utf8(uint32_t c, std::string& out) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
}

bool is_space(uint32_t c) {
  return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
         c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_numeric(uint32_t c) { return CharTable::get()[c] == CharClass::kNumber || contains(kDigitsToo, c); }

bool is_punctuation(uint32_t c) {
  if (c < 0x80) return c > ' ' && c < 0x7f && !(c >= '0' && c <= '9') && !((c | 32) >= 'a' && (c | 32) <= 'z');
  return major_category(c) == 'P' && !contains(kNotPunctuation, c);
}

std::string normalize(std::string_view valid, NormalForm form) {
  if (is_ascii(valid)) return std::string(valid);
  int options = UTF8PROC_STABLE;
  options |= form == NormalForm::kNfc || form == NormalForm::kNfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::kNfkc || form == NormalForm::kNfkd) options |= UTF8PROC_COMPAT;
  std::string out;
  size_t begin = 0;
  for (size_t i = 0; i < valid.size();) {
    const CodePoint c = read_utf8(valid.data() + i);
    if (c.length > 1 && is_inert(c.value)) {
      append_normalized(valid.substr(begin, i - begin), options, out);
      out.append(valid, i, c.length);
      begin = i + c.length;
    }
    i += c.length;
  }
  append_normalized(valid.substr(begin), options, out);
  return out;
}

std::string strip_accents(std::string_view valid) {
  std::string out;
  out.reserve(valid.size());
  for (size_t i = 0; i < valid.size();) {
    const CodePoint c = read_utf8(valid.data() + i);
    const bool mark = major_category(c.value) == 'M' && !find_added(c.value) && !contains(kNotAccents, c.value);
    if (!mark && !contains(kAccentsToo, c.value)) out.append(valid, i, c.length);
    i += c.length;
  }
  return out;
}

std::string to_lower(std::string_view valid) {
  std::string out;
  out.reserve(valid.size());
  for (size_t i = 0; i < valid.size();) {
    const CodePoint c = read_utf8(valid.data() + i);
    i += c.length;
    const auto* end = std::end(kLowerToo);
    const auto* pair = std::lower_bound(std::begin(kLowerToo), end, c.value,
                                        [](const LowerPair& p, uint32_t x) { return p.upper < x; });
    if (c.value < 0x80)
      out += static_cast<char>(c.value >= 'A' && c.value <= 'Z' ? c.value | 32 : c.value);
    else if (c.value == 0x130)
      out += "i\xcc\x87";  // the one letter whose small form is two characters
    else if (pair != end && pair->upper == c.value)
      append_utf8(pair->lower, out);
    else
      append_utf8(static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.value))), out);
  }
  return out;
}

std::string to_upper(std::string_view valid) {
  std::string out;
  for (size_t i = 0; i < valid.size();) {
    const CodePoint c = read_utf8(valid.data() + i);
    i += c.length;
    append_utf8(static_cast<uint32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c.value))), out);
  }
  return out;
}

std::string later_members(std::string_view property) {
  std::string out;
  const auto add = [&](uint32_t first, uint32_t last) {
    out += first == last ? fmt::format("\\x{{{:x}}}", first) : fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", first, last);
  };
  if (property == "Han")
    for (const CodeRange& range : kAddedHan) add(range.first, range.last);
  for (const AddedRange& range : kAdded)
    if (std::string_view(range.category).starts_with(property)) add(range.first, range.last);
  return out;
}

}  // namespace coca::text

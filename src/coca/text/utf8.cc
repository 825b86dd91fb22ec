// coca/text/utf8.cc - see utf8.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/utf8.h"

namespace coca::text {

Utf8Sequence next_utf8(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {Utf8Step::kValid, 1};
  // The range of the second byte rules out overlong forms (E0, F0), surrogates (ED) and excess (F4).
  size_t length = 0;
  unsigned low = 0x80, high = 0xbf;
  if (lead >= 0xc2 && lead <= 0xdf) {
    length = 2;
  } else if (lead >= 0xe0 && lead <= 0xef) {
    length = 3;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
  } else if (lead >= 0xf0 && lead <= 0xf4) {
    length = 4;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
  } else {
    return {Utf8Step::kInvalid, 1};
  }
  for (size_t i = 1; i < length; ++i) {
    if (i >= text.size()) return {Utf8Step::kIncomplete, i};
    if (byte(i) < low || byte(i) > high) return {Utf8Step::kInvalid, i};
    low = 0x80;
    high = 0xbf;
  }
  return {Utf8Step::kValid, length};
}

size_t find_invalid(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    if (static_cast<unsigned char>(text[i]) < 0x80) {
      ++i;
      continue;
    }
    const Utf8Sequence next = next_utf8(text.substr(i));
    if (next.step != Utf8Step::kValid) return i;
    i += next.length;
  }
  return text.size();
}

bool is_valid_utf8(std::string_view text) { return find_invalid(text) == text.size(); }

size_t count_invalid(std::string_view text) {
  size_t count = 0;
  for (size_t i = find_invalid(text); i < text.size(); i += find_invalid(text.substr(i))) {
    i += next_utf8(text.substr(i)).length;
    ++count;
  }
  return count;
}

std::string replace_invalid(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t valid = find_invalid(text);
    out.append(text.substr(0, valid));
    text.remove_prefix(valid);
    if (text.empty()) break;
    out += "\xef\xbf\xbd";
    text.remove_prefix(next_utf8(text).length);
  }
  return out;
}

bool strip_bom(std::string& text) {
  if (!text.starts_with("\xef\xbb\xbf")) return false;
  text.erase(0, 3);
  return true;
}

}  // namespace coca::text

// coca/text/unicode.h - code points and their classes as the tokenizers package sees them (Unicode 16 in its
// regular expressions, 12 in its normalization), whatever the libraries at hand know.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace coca::text {

enum class CharClass : uint8_t { kOther, kLetter, kNumber, kSpace, kNewline };  // kNewline: CR and LF only

// Pages of 256 code points; equal pages are stored once.
class CharTable {
 public:
  static const CharTable& get();
  CharClass operator[](uint32_t c) const { return classes_[pages_[c >> 8]][c & 255]; }

 private:
  CharTable();
  uint8_t pages_[0x1100];
  CharClass classes_[256][256];
};

struct CodePoint {
  uint32_t value;
  uint32_t length;  // bytes
};
// The first character of a text that is valid and not empty.
inline CodePoint read_utf8(const char* text) {
  const auto byte = [&](int i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[i])); };
  const uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xe0) return {(lead & 31) << 6 | (byte(1) & 63), 2};
  if (lead < 0xf0) return {(lead & 15) << 12 | (byte(1) & 63) << 6 | (byte(2) & 63), 3};
  return {(lead & 7) << 18 | (byte(1) & 63) << 12 | (byte(2) & 63) << 6 | (byte(3) & 63), 4};
}
void append_utf8(uint32_t c, std::string& out);

bool is_space(uint32_t c);        // White_Space
bool is_numeric(uint32_t c);      // what the package's Digits cuts out
bool is_punctuation(uint32_t c);  // what its Punctuation cuts out

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
std::string normalize(std::string_view valid, NormalForm form);
std::string strip_accents(std::string_view valid);  // combining marks; composed letters keep theirs
std::string to_lower(std::string_view valid);       // character by character; no final sigma

std::string to_upper(std::string_view valid);  // character by character; no letter becomes two

// For regular expressions, which the library compiles with Unicode 14: the later characters of a property
// ("L", "Lu", "Han") as the inside of a PCRE2 character class, for example "\x{897}\x{105c0}-\x{105f3}".
std::string later_members(std::string_view property);

}  // namespace coca::text

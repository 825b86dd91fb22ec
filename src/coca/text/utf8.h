// coca/text/utf8.h - strict UTF-8 (no overlong forms, surrogates or values above U+10FFFF).
// Invalid text is counted and replaced by maximal subparts, as Unicode (3.9, table 3-8) and the web do.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace coca::text {

enum class Utf8Step {
  kValid,       // a whole sequence
  kInvalid,     // bytes that cannot begin one
  kIncomplete,  // the text ends within a sequence that is valid so far
};
struct Utf8Sequence {
  Utf8Step step;
  size_t length;  // bytes, at least 1
};
// The first sequence of a text that is not empty.
Utf8Sequence next_utf8(std::string_view text);

bool is_valid_utf8(std::string_view text);
size_t count_invalid(std::string_view text);         // how many U+FFFD replace_invalid would write
size_t find_invalid(std::string_view text);          // byte offset, or text.size() when all is valid
std::string replace_invalid(std::string_view text);  // each invalid part becomes U+FFFD
bool strip_bom(std::string& text);                   // removes a leading EF BB BF; true if there was one

}  // namespace coca::text

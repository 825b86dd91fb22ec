// A regular expression of a tokenizer (the first line) and a text to search.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/regex.h"
#include "coca/text/utf8.h"
#include "support/harness.h"

// PCRE2 may use 64 MiB for matching, a limit set by the library.
COCA_FUZZ_TARGET({.base = size_t{72} << 20, .per_byte = 1024}) {
  using namespace coca;
  const size_t line = std::min(input.find('\n'), input.size());
  const text::Regex regex(input.substr(0, line), "pattern");
  const std::string text = text::replace_invalid(input.substr(std::min(line + 1, input.size())));
  size_t last = 0;
  regex.find_all(text, [&](size_t begin, size_t end) {
    fuzz::require(last <= begin && begin <= end && end <= text.size(), "a match outside the text");
    last = end;
  });
}

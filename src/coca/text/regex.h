// coca/text/regex.h - regular expressions of tokenizer files: written for Oniguruma (Ruby syntax), run by PCRE2.
// Patterns come from untrusted files. What the two engines read differently is translated or
// refused, and matching has limits.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "coca/text/pcre.h"

namespace coca::text {

// The pattern in PCRE2's syntax. `origin` names it in errors.
std::string translate_oniguruma(std::string_view pattern, std::string_view origin);
// A pattern that matches the text itself.
std::string quote_regex(std::string_view text);

class Regex {
 public:
  // Error kBadFile naming `origin` when the pattern is wrong, too large or not supported.
  Regex(std::string_view oniguruma_pattern, std::string origin);

  // All matches from left to right, also empty ones that do not touch the match before. `text` must be valid UTF-8.
  // Error kBadFile when matching exceeds its limits. Thread-safe.
  void find_all(std::string_view text, const std::function<void(size_t begin, size_t end)>& found) const;
  const std::string& pattern() const { return pattern_; }

 private:
  std::string pattern_, origin_;
  Pcre compiled_;
};

}  // namespace coca::text

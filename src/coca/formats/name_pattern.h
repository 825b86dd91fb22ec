// coca/formats/name_pattern.h - regular expressions over module names, as PEFT's files have them (Python's re, read by
// PCRE2). They come from files that nobody vouches for: compiling and matching have limits.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace coca::formats {

class NamePattern {
 public:
  // `where` names the field in errors: kBadFile for what is not a pattern.
  NamePattern(std::string pattern, std::string where);
  ~NamePattern();
  NamePattern(const NamePattern&) = delete;
  NamePattern& operator=(const NamePattern&) = delete;

  bool matches(std::string_view name) const;  // the whole name; Error kBadFile when that takes too many steps

 private:
  struct Compiled;
  std::string pattern_, where_;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace coca::formats

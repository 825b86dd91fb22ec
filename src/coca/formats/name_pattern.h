// coca/formats/name_pattern.h - regular expressions over module names, as PEFT's files have them (Python's re, read by
// PCRE2).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "coca/text/pcre.h"

namespace coca::formats {

class NamePattern {
 public:
  // `where` names the field in errors: kBadFile for what is not a pattern.
  NamePattern(const std::string& pattern, const std::string& where);

  // The whole name; Error kBadFile when that takes too many steps.
  bool matches(std::string_view name) const { return compiled_.matches(name); }

 private:
  text::Pcre compiled_;
};

}  // namespace coca::formats

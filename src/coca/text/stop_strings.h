// coca/text/stop_strings.h - ends a text at the first of several strings to be completed, while the text arrives in
// pieces.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace coca::text {

// A possible beginning of a stop string is held back until it is decided. The stop string itself is never output.
class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> strings);  // empty ones are an Error

  std::string push(std::string_view piece);  // what can be shown now; nothing once matched
  std::string finish();                      // the text held back, if no stop string was completed
  bool matched() const { return matched_; }

 private:
  std::vector<std::string> strings_;
  std::string pending_;
  bool matched_ = false;
};

}  // namespace coca::text

// SPDX-License-Identifier: Apache-2.0
#include "coca/text/stop_strings.h"

#include <algorithm>
#include <utility>

#include "coca/base/error.h"

namespace coca::text {

StopStrings::StopStrings(std::vector<std::string> strings) : strings_(std::move(strings)) {
  for (const std::string& s : strings_) COCA_CHECK(!s.empty(), "stop: a string is empty; expected text");
}

std::string StopStrings::push(std::string_view piece) {
  if (matched_) return {};
  pending_ += piece;
  // The one that is complete first, whatever the pieces; of those the longest.
  size_t first = std::string::npos, end = std::string::npos;
  for (const std::string& s : strings_) {
    const size_t at = pending_.find(s);
    if (at == std::string::npos || at + s.size() > end || (at + s.size() == end && at > first)) continue;
    first = at;
    end = at + s.size();
  }
  if (first != std::string::npos) {
    matched_ = true;
    pending_.resize(first);
    return std::exchange(pending_, {});
  }
  size_t held = 0;  // the longest end that begins a stop string
  for (const std::string& s : strings_)
    for (size_t n = std::min(s.size() - 1, pending_.size()); n > held; --n)
      if (pending_.ends_with(std::string_view(s).substr(0, n))) held = n;
  std::string shown = pending_.substr(0, pending_.size() - held);
  pending_.erase(0, shown.size());
  return shown;
}

std::string StopStrings::finish() { return std::exchange(pending_, {}); }

}  // namespace coca::text

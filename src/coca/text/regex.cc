// coca/text/regex.cc - see regex.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/regex.h"

#include <optional>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/text/unicode.h"

namespace coca::text {

namespace {

constexpr size_t kMaxPattern = 16 * 1024;  // bytes
// Ruby's ^ and $ match at every line.
constexpr PcreRules kRules = {.text = PcreRules::Text::kUnicode, .max_steps = 1'000'000, .max_kib = 64 * 1024};

std::string translated(std::string_view pattern, const std::string& origin) {
  COCA_CHECK_AS(kBadFile, pattern.size() <= kMaxPattern, "{}: a pattern of {}; at most {}", origin,
                counted(pattern.size(), "byte"), grouped(kMaxPattern));
  return translate_oniguruma(pattern, origin);
}

}  // namespace

Regex::Regex(std::string_view pattern, std::string origin)
    : pattern_(pattern),
      origin_(std::move(origin)),
      compiled_(translated(pattern_, origin_), origin_, pattern_, kRules) {}

void Regex::find_all(std::string_view text, const std::function<void(size_t, size_t)>& found) const {
  std::optional<size_t> last_end;
  compiled_.scan(text, [&](Pcre::Span match) -> std::optional<size_t> {
    const auto [begin, end] = match;
    COCA_CHECK_AS(kBadFile, begin <= end && begin >= last_end.value_or(0),
                  "{}: \"{}\" would match backwards; \\K in a lookaround is not supported", origin_, pattern_);
    const bool touching = begin == end && last_end == end;
    if (!touching) found(begin, end);
    last_end = end;
    if (begin != end) return end;
    return end + (end < text.size() ? read_utf8(text.data() + end).length : 1);
  });
}

}  // namespace coca::text

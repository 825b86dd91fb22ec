// SPDX-License-Identifier: Apache-2.0
#include "coca/formats/name_pattern.h"

#include "coca/base/count.h"
#include "coca/base/error.h"

namespace coca::formats {

namespace {

constexpr size_t kMaxPattern = 4096;  // bytes
constexpr text::PcreRules kRules = {.match = text::PcreRules::Match::kWhole, .max_steps = 100'000, .max_kib = 1024};

const std::string& checked(const std::string& pattern, const std::string& where) {
  COCA_CHECK_AS(kBadFile, pattern.size() <= kMaxPattern, "{}: a pattern of {}; at most {}", where,
                counted(pattern.size(), "byte"), grouped(kMaxPattern));
  return pattern;
}

}  // namespace

NamePattern::NamePattern(const std::string& pattern, const std::string& where)
    : compiled_(checked(pattern, where), where, pattern, kRules) {}

}  // namespace coca::formats

// SPDX-License-Identifier: Apache-2.0
#include "coca/study/seeds.h"

#include <algorithm>
#include <cmath>

#include "coca/eval/interval.h"

namespace coca::study {

SeedMean mean_over_seeds(const std::vector<double>& values) {
  SeedMean s{.n = static_cast<int64_t>(values.size())};
  const auto n = static_cast<double>(s.n);
  for (const double v : values) s.mean += v / n;
  s.low = s.high = s.mean;
  if (s.n < 2) return s;
  for (const double v : values) s.deviation += (v - s.mean) * (v - s.mean);
  s.deviation = std::sqrt(s.deviation / (n - 1));
  const double half = eval::student_t(s.n - 1) * s.deviation / std::sqrt(n);
  s.low -= half;
  s.high += half;
  return s;
}

SeedMean share_over_seeds(const std::vector<double>& shares, int64_t trials) {
  SeedMean s = mean_over_seeds(shares);
  if (s.n < 2) return s;
  const eval::Interval all =
      trials > 0 ? eval::wilson_interval_of_mean(s.mean, s.n * trials) : eval::Interval{.low = s.low, .high = s.high};
  s.low = std::max(0.0, std::min(s.low, all.low));
  s.high = std::min(1.0, std::max(s.high, all.high));
  return s;
}

}  // namespace coca::study

// SPDX-License-Identifier: Apache-2.0
#include "coca/study/seeds.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/eval/passkey.h"

namespace coca::study {

double student_t(int64_t freedom) {
  COCA_CHECK(freedom >= 1, "student_t: {} of freedom; expected at least 1", counted(freedom, "degree"));
  constexpr std::array<double, 10> kFirst = {12.706205, 4.302653, 3.182446, 2.776445, 2.570582,
                                             2.446912,  2.364624, 2.306004, 2.262157, 2.228139};
  if (freedom <= static_cast<int64_t>(kFirst.size())) return kFirst[static_cast<size_t>(freedom - 1)];
  // Cornish and Fisher's expansion around the normal quantile z; from 11 degrees on it is right to 2e-5.
  constexpr double z = 1.959963984540054, z3 = z * z * z, z5 = z3 * z * z, z7 = z5 * z * z, z9 = z7 * z * z;
  const auto v = static_cast<double>(freedom);
  return z + (z3 + z) / (4 * v) + (5 * z5 + 16 * z3 + 3 * z) / (96 * v * v) +
         (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * v * v * v) +
         (79 * z9 + 776 * z7 + 1482 * z5 - 1920 * z3 - 945 * z) / (92160 * v * v * v * v);
}

SeedMean mean_over_seeds(const std::vector<double>& values) {
  SeedMean s{.n = static_cast<int64_t>(values.size())};
  const auto n = static_cast<double>(s.n);
  for (const double v : values) s.mean += v / n;
  s.low = s.high = s.mean;
  if (s.n < 2) return s;
  for (const double v : values) s.deviation += (v - s.mean) * (v - s.mean);
  s.deviation = std::sqrt(s.deviation / (n - 1));
  const double half = student_t(s.n - 1) * s.deviation / std::sqrt(n);
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

// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/interval.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "coca/base/count.h"
#include "coca/base/error.h"

namespace coca::eval {

Interval wilson_interval_of_mean(double mean, int64_t trials) {
  COCA_CHECK(trials >= 1 && mean >= 0 && mean <= 1, "wilson interval: mean {} of {}", mean, trials);
  constexpr double z = 1.959963984540054;  // the normal distribution's 97.5 % quantile
  const auto n = static_cast<double>(trials);
  const double z2 = z * z / n, middle = (mean + z2 / 2) / (1 + z2),
               half = z * std::sqrt(mean * (1 - mean) / n + z2 / (4 * n)) / (1 + z2);
  return {mean == 0 ? 0.0 : std::max(0.0, middle - half), mean == 1 ? 1.0 : std::min(1.0, middle + half)};
}

Interval wilson_interval(int64_t successes, int64_t trials) {
  COCA_CHECK(trials >= 1 && successes >= 0 && successes <= trials, "wilson interval: {} of {}", successes, trials);
  return wilson_interval_of_mean(static_cast<double>(successes) / static_cast<double>(trials), trials);
}

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

GroupedMean mean_over_groups(std::span<const GroupSum> groups) {
  GroupedMean m;
  double sum = 0;
  for (const GroupSum& g : groups) {
    sum += g.sum;
    m.items += g.items;
    m.groups += g.items > 0;
  }
  const auto n = static_cast<double>(m.items), k = static_cast<double>(m.groups);
  m.mean = sum / n;
  if (m.groups < 2 || !std::isfinite(m.mean)) return m;
  double squares = 0;
  for (const GroupSum& g : groups) {
    const double off = g.sum - static_cast<double>(g.items) * m.mean;
    squares += off * off;
  }
  const double half = student_t(m.groups - 1) * std::sqrt(squares * k / (k - 1)) / n;
  m.interval = Interval{.low = m.mean - half, .high = m.mean + half};
  return m;
}

}  // namespace coca::eval

// coca/eval/interval.h - 95 % intervals: of shares (Wilson), and of means over documents or seeds (Student's t).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace coca::eval {

struct Interval {
  double low = 0, high = 1;
};

// Wilson's score interval for a share.
Interval wilson_interval(int64_t successes, int64_t trials);
// The same for a mean of values from 0 to 1, treated as a share of successes. A share varies most, so the interval is
// never too narrow.
Interval wilson_interval_of_mean(double mean, int64_t trials);

// The 97.5 % quantile of Student's t with the given degrees of freedom, at least 1.
double student_t(int64_t freedom);

// A sum over some items of one document.
struct GroupSum {
  double sum = 0;
  int64_t items = 0;
};
// Mean over all items, and its interval over the k groups that have any, taken as independent draws; empty for k < 2:
// mean -+ t(k-1) sqrt(k/(k-1) sum (s - n mean)^2) / sum n, where s and n are a group's sum and items.
struct GroupedMean {
  int64_t items = 0, groups = 0;
  double mean = 0;  // NaN without items
  std::optional<Interval> interval;
};
GroupedMean mean_over_groups(std::span<const GroupSum>);

}  // namespace coca::eval

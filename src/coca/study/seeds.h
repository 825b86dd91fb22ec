// coca/study/seeds.h - a figure over seeds: its mean and confidence interval.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace coca::study {

struct SeedMean {
  int64_t n = 0;
  double mean = 0, deviation = 0;
  double low = 0, high = 0;  // 95 % interval of the mean by Student's t; the mean itself where there is one seed

  double half_width() const { return (high - low) / 2; }
};
SeedMean mean_over_seeds(const std::vector<double>& values);
// Of shares of successes, each of `trials`. With few seeds, or where all give the same share, Student's t knows nothing
// of the trials: the interval also covers Wilson's for all trials together, and stays within 0 and 1.
SeedMean share_over_seeds(const std::vector<double>& shares, int64_t trials);

}  // namespace coca::study

// SPDX-License-Identifier: Apache-2.0
#include "coca/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace coca::optim {

void check_schedule(const Schedule& s) {
  COCA_CHECK(s.peak > 0 && std::isfinite(s.peak), "learning_rate is {}; expected more than 0", s.peak);
  COCA_CHECK(s.floor >= 0 && s.floor <= s.peak, "min_learning_rate is {}; expected 0 to learning_rate, {}", s.floor,
             s.peak);
  COCA_CHECK(s.warmup_steps >= 0, "warmup_steps is {}; expected at least 0", s.warmup_steps);
  COCA_CHECK(s.total_steps >= 1, "steps is {}; expected at least 1", s.total_steps);
}

double learning_rate(const Schedule& s, int64_t step) {
  if (step < s.warmup_steps) return s.peak * static_cast<double>(step + 1) / static_cast<double>(s.warmup_steps);
  const auto span = static_cast<double>(std::max<int64_t>(1, s.total_steps - 1 - s.warmup_steps));
  const double done = std::clamp(static_cast<double>(step - s.warmup_steps) / span, 0.0, 1.0);
  switch (s.decay) {
    case Decay::kConstant: return s.peak;
    case Decay::kLinear: return s.peak + (s.floor - s.peak) * done;
    case Decay::kCosine: return s.floor + (s.peak - s.floor) * 0.5 * (1.0 + std::cos(std::numbers::pi * done));
  }
  return s.peak;
}

}  // namespace coca::optim

// coca/optim/schedule.h - the learning rate by step: linear warm-up from zero, then a decay to a floor.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/base/enum_names.h"

namespace coca::optim {

enum class Decay : uint8_t { kConstant, kLinear, kCosine };

struct Schedule {
  Decay decay = Decay::kCosine;
  double peak = 1e-3, floor = 1e-4;
  int64_t warmup_steps = 0, total_steps = 1;
};

void check_schedule(const Schedule&);  // throws for a floor above the peak, negative steps, ...
// step is 0-based. The first of w warm-up steps uses peak / w and the last the peak. The decay starts at the peak, and
// the very last step uses the floor (unless the decay has only one step).
double learning_rate(const Schedule&, int64_t step);

}  // namespace coca::optim

COCA_ENUM_NAMES(coca::optim::Decay, "decay", {coca::optim::Decay::kConstant, "constant"},
                {coca::optim::Decay::kLinear, "linear"}, {coca::optim::Decay::kCosine, "cosine"})

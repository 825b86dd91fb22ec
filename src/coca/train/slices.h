// coca/train/slices.h - cuts the step of a config into slices for ranks, for pretraining and fine-tuning.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "coca/base/count.h"
#include "coca/train/batches.h"

namespace coca::train {

template <class Config>
void check_slices(const Config& c) {
  COCA_CHECK(c.slices >= 0 && c.batch * c.accumulation % std::max<int64_t>(c.slices, 1) == 0,
             "slices is {}; expected 0 (one a rank) or a divisor of the {} of a step", c.slices,
             counted(c.batch * c.accumulation, "window"));
  COCA_CHECK(!c.context_parallel || c.slices == 0, "slices is {}; with context_parallel a step is not cut into slices",
             c.slices);
}

// The config with slices for this many ranks, and micro-batches that fit into them. Unchanged if tokens are split over
// ranks.
template <class Config>
Config in_slices(Config c, int ranks) {
  if (c.context_parallel) return c;
  c.slices = slices_for(c.slices, ranks);
  const BatchShape shape =
      shape_in_slices({.batch = c.batch, .accumulation = c.accumulation, .length = c.length}, c.slices);
  c.batch = shape.batch;
  c.accumulation = shape.accumulation;
  return c;
}

}  // namespace coca::train

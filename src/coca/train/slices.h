// coca/train/slices.h - how a config's step is cut for ranks; what pretraining's and fine-tuning's configs have alike.
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
  COCA_CHECK(!c.context_parallel || c.slices == 0, "slices is {}; with context_parallel a step is not cut into slices", c.slices);
}

// The config with the slices of so many ranks, and the micro-batches that go into them. As it is where ranks share tokens.
template <class Config>
Config in_slices(Config c, int ranks) {
  if (c.context_parallel) return c;
  c.slices = slices_for(c.slices, ranks);
  const BatchShape shape = shape_in_slices({.batch = c.batch, .accumulation = c.accumulation, .length = c.length}, c.slices);
  c.batch = shape.batch;
  c.accumulation = shape.accumulation;
  return c;
}

}  // namespace coca::train

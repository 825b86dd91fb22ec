// coca/ops/rope.h - rotary position embedding (Su et al. 2021), half-split layout, partial rotary.
// Math: docs/math/rope.md. Positions and frequencies come from model/rope_table; ops take only rows of cos and sin.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/rope.h"
#include "coca/kernels/args/rotation.h"

namespace coca::ops {

void rope_forward(Context&, const RopeForward&);
void rope_backward(Context&, const RopeBackward&);

}  // namespace coca::ops

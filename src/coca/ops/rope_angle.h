// coca/ops/rope_angle.h - the gradient of the angles by which positions rotate pairs, for learned frequencies (CLEX).
// Math: docs/math/rope_angle.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/rope_angle.h"

namespace coca::ops {

void rope_angle_backward(Context&, const RopeAngleBackward&);

}  // namespace coca::ops

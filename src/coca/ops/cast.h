// coca/ops/cast.h - a tensor in another element type: fp32 to bf16 (to nearest even, NaN stays NaN) and back (exact).
// Math: docs/math/cast.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/cast.h"

namespace coca::ops {

void cast(Context&, const Cast&);

}  // namespace coca::ops

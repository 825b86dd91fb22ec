// coca/ops/cast.h - a tensor in another element type: fp32 to bf16 (to nearest even, NaN stays NaN) and back (exact).
// Math: docs/math/cast.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/tensor/context.h"

namespace coca::ops {

struct Cast {
  TensorRef x;     // any shape, contiguous, f32 or bf16
  MutTensorRef y;  // the same shape, contiguous, written: the other type
};
void cast(Context&, const Cast&);

}  // namespace coca::ops

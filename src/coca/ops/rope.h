// coca/ops/rope.h - rotary position embedding (Su et al. 2021), half-split layout, partial rotary.
// Math: docs/math/rope.md. Where positions and frequencies come from is model/rope_table's business:
// ops see only rows of cos and sin.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/tensor/context.h"

namespace coca::ops {

// cos and sin of position * frequency, one row per token of the call. R = rotary dims, R <= D, even.
struct RopeRows {
  TensorRef cos, sin;  // [1 or B, N, R/2] f32

  // Of `count` tokens from the `first` of these on; none where there are none.
  RopeRows narrow(int64_t first, int64_t count) const {
    return cos.empty() ? RopeRows{} : RopeRows{cos.narrow(1, first, count), sin.narrow(1, first, count)};
  }
};

// Pairs are (j, j + R/2); dims R..D-1 pass through. x and y may be strided views and may be the same tensor.
// Both f32 or both bf16; the rotation is in f32, rounded once.
struct RopeForward {
  RopeRows rows;
  TensorRef x;     // [B, N, H, D]
  MutTensorRef y;  // [B, N, H, D] written
};
struct RopeBackward {
  RopeRows rows;
  TensorRef dy;     // [B, N, H, D]
  MutTensorRef dx;  // [B, N, H, D] written
};
void rope_forward(Context&, const RopeForward&);
void rope_backward(Context&, const RopeBackward&);

}  // namespace coca::ops

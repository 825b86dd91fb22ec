// coca/kernels/args/rope.h - what rope takes; ops/rope.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/implementation.h"

namespace coca::ops {

// cos and sin of position * frequency, one row per token of the call. R = rotary dims, R <= D, even.
struct RopeRows {
  TensorRef cos, sin;  // [1 or B, N, R/2] f32

  // The rows of `count` tokens, from `first` on; empty if these are empty.
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

struct RopeFunctions {
  void (*forward)(Context&, const RopeForward&);
  void (*backward)(Context&, const RopeBackward&);
};
using RopeImpl = Implementation<RopeFunctions>;

}  // namespace coca::ops

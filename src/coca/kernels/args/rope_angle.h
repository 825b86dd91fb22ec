// coca/kernels/args/rope_angle.h - what rope_angle takes; ops/rope_angle.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/kernels/args/collinear.h"
#include "coca/kernels/args/implementation.h"
#include "coca/kernels/args/rope.h"

namespace coca::ops {

// How the operand of attention depends on the angles.
//   kRotated: it is x, the result of a rotation: rotary q and k, and k_eff of every form
//   kQuery:   it is q_eff of a form, made from the query x
enum class AngleOf : uint8_t { kRotated, kQuery };

// The rows are plain cos and sin; an amplitude or xPos's growth would need another formula.
struct RopeAngleBackward {
  AngleOf kind = AngleOf::kRotated;
  CollinearOptions collinear;  // with kQuery
  RopeRows rows;               // of x's tokens
  TensorRef x;                 // [B, N, H, E] the operand of attention; with kQuery q [B, N, H, members P + C]
  TensorRef dy;                // [B, N, H, E], the gradient of the operand of attention
  MutTensorRef dangle;         // [B, N, R/2] f32, summed over heads; accumulates (+=)
};

struct RopeAngleFunctions {
  void (*backward)(Context&, const RopeAngleBackward&);
};
using RopeAngleImpl = Implementation<RopeAngleFunctions>;

}  // namespace coca::ops

// coca/kernels/args/rope_angle.h - what rope_angle takes; ops/rope_angle.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/kernels/args/implementation.h"
#include "coca/kernels/args/rope.h"

namespace coca::ops {

// How the operand of attention is made from x, and thus depends on the angles.
//   kRotated: it is x, the result of a rotation: rotary q and k, the q_eff of strict CoCA, the k_eff of every CoCA
//   kSlack:   q_eff = x * R x                  kTied: the same with the means of the pairs
enum class AngleOf : uint8_t { kRotated, kSlack, kTied };

// The rows are plain cos and sin; an amplitude or xPos's growth would need another formula.
struct RopeAngleBackward {
  AngleOf kind = AngleOf::kRotated;
  RopeRows rows;        // of x's tokens
  TensorRef x;          // [B, N, H, D]; q with kSlack and kTied, else the operand of attention
  TensorRef dy;         // [B, N, H, D], the gradient of the operand of attention
  MutTensorRef dangle;  // [B, N, R/2] f32, summed over heads; accumulates (+=)
};

struct RopeAngleFunctions {
  void (*backward)(Context&, const RopeAngleBackward&);
};
using RopeAngleImpl = Implementation<RopeAngleFunctions>;

}  // namespace coca::ops

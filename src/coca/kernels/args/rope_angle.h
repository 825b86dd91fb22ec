// coca/kernels/args/rope_angle.h - what rope_angle takes; ops/rope_angle.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/kernels/args/implementation.h"
#include "coca/kernels/args/rope.h"

namespace coca::ops {

// What attention sees of x, and so what the angles do.
//   kRotated: x itself, any rotation's result: rotary q and k, the q_eff of strict CoCA, the k_eff of every CoCA
//   kSlack:   q_eff = x * R x                  kTied: the same of the pairs' means
enum class AngleOf : uint8_t { kRotated, kSlack, kTied };

// The rows are plain cos and sin: an amplitude or xPos' growth would need another formula.
struct RopeAngleBackward {
  AngleOf kind = AngleOf::kRotated;
  RopeRows rows;        // of x's tokens
  TensorRef x;          // [B, N, H, D]; q with kSlack and kTied, else what attention sees
  TensorRef dy;         // [B, N, H, D], of what attention sees
  MutTensorRef dangle;  // [B, N, R/2] f32, summed over heads; accumulates (+=)
};

struct RopeAngleFunctions {
  void (*backward)(Context&, const RopeAngleBackward&);
};
using RopeAngleImpl = Implementation<RopeAngleFunctions>;

}  // namespace coca::ops

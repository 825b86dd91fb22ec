// coca/kernels/args/residual.h - what residual takes; ops/residual.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/implementation.h"

namespace coca::ops {

struct ResidualForward {
  TensorRef a;     // [M, C] f32: the stream
  TensorRef b;     // [M, C] f32 or bf16
  TensorRef c;     // [M, C] of b's type, or empty
  MutTensorRef y;  // [M, C] f32 written; may be a, and b or c when they are f32
};
// The gradient of a sum is the incoming gradient for each summand; there is nothing to compute.

struct ResidualFunctions {
  void (*forward)(Context&, const ResidualForward&);
};
using ResidualImpl = Implementation<ResidualFunctions>;

}  // namespace coca::ops

// coca/ops/residual.h - y = a + b (sequential residual) or a + b + c (parallel, GPT-NeoX), over flat tensors.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/tensor/context.h"

namespace coca::ops {

struct ResidualForward {
  TensorRef a;     // [M, C] f32: the stream
  TensorRef b;     // [M, C] f32 or bf16
  TensorRef c;     // [M, C] of b's type, or empty
  MutTensorRef y;  // [M, C] f32 written; may be a, and b or c when they are f32
};
void residual_forward(Context&, const ResidualForward&);
// The gradient of a sum is the incoming gradient for each summand; there is nothing to compute.

}  // namespace coca::ops

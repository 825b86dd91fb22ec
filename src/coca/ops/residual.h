// coca/ops/residual.h - y = a + b (sequential residual) or a + b + c (parallel, GPT-NeoX), over flat tensors.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/tensor/context.h"

namespace coca::ops {

struct ResidualForward {
  TensorRef a, b;  // [M, C]
  TensorRef c;     // [M, C], or empty
  MutTensorRef y;  // [M, C] written; may be a, b or c
};
void residual_forward(Context&, const ResidualForward&);
// The gradient of a sum is the incoming gradient for each summand; there is nothing to compute.

}  // namespace coca::ops

// coca/ops/linear.h - y = x W^T + b and its gradients. Matrix products by oneDNN; ref is a plain triple loop.
// Math: docs/math/linear.md. Weights are stored as in Hugging Face files: [out, in], row-major.
// x, w (and dy) are f32 or bf16, all of one type; y and dx are f32 or bf16 of their own choice, rounded once; b, dw and
// db are f32. Sums are f32.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/ops/write.h"
#include "coca/tensor/context.h"

namespace coca::ops {

// Rows of x, y, dx, dy may be strided (stride(0) >= columns); the innermost stride is 1.
struct LinearForward {
  TensorRef x;                     // [M, K]
  TensorRef w;                     // [N, K]
  TensorRef b;                     // [N], or empty
  MutTensorRef y;                  // [M, N] written, or += with kAccumulate
  Write y_write = Write::kAssign;
};
struct LinearBackward {
  TensorRef x, w, dy;              // [M, K] [N, K] [M, N]
  MutTensorRef dx;                 // [M, K] written or += by dx_write; empty: not wanted
  MutTensorRef dw;                 // [N, K] accumulated (+=); empty: not wanted
  MutTensorRef db;                 // [N] accumulated (+=); empty: no bias or not wanted
  Write dx_write = Write::kAssign;
};

void linear_forward(Context&, const LinearForward&);
void linear_backward(Context&, const LinearBackward&);

}  // namespace coca::ops

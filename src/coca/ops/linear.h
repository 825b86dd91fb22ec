// coca/ops/linear.h - y = x W^T + b and its gradients. Matrix products by oneDNN; ref is a plain triple loop.
// Math: docs/math/linear.md. Weights are stored as in Hugging Face files: [out, in], row-major.
// x, w (and dy) are f32 or bf16, all of one type; y and dx are each f32 or bf16, rounded once; b, dw and db are f32.
// Sums are f32.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/linear.h"

namespace coca::ops {

void linear_forward(Context&, const LinearForward&);
void linear_backward(Context&, const LinearBackward&);

}  // namespace coca::ops

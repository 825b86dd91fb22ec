// coca/ops/activation.h - GELU (exact and tanh form) and SwiGLU, elementwise. Math: docs/math/activation.md.
// The tensors of a call are all f32 or all bf16; the arithmetic is in f32, rounded once.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/activation.h"

namespace coca::ops {

void gelu_forward(Context&, const GeluForward&);
void gelu_backward(Context&, const GeluBackward&);
void swiglu_forward(Context&, const SwiGluForward&);
void swiglu_backward(Context&, const SwiGluBackward&);

}  // namespace coca::ops

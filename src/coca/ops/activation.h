// coca/ops/activation.h - GELU (exact and tanh form) and SwiGLU, elementwise. Math: docs/math/activation.md.
// The tensors of a call are all f32 or all bf16; the arithmetic is in f32, rounded once.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/tensor/context.h"

namespace coca::ops {

// kExact: x Phi(x) with erf (HF "gelu"); kTanh: Hendrycks' approximation (HF "gelu_new", "gelu_pytorch_tanh").
enum class Gelu : uint8_t { kExact, kTanh };

struct GeluForward {
  Gelu kind = Gelu::kExact;
  TensorRef x;     // [M, F]
  MutTensorRef y;  // [M, F] written
};
struct GeluBackward {
  Gelu kind = Gelu::kExact;
  TensorRef x, dy;  // [M, F]
  MutTensorRef dx;  // [M, F] written; may be dy
};
void gelu_forward(Context&, const GeluForward&);
void gelu_backward(Context&, const GeluBackward&);

// y = silu(gate) * up, silu(x) = x / (1 + exp(-x)) (Shazeer 2020).
struct SwiGluForward {
  TensorRef gate, up;  // [M, F]
  MutTensorRef y;      // [M, F] written
};
struct SwiGluBackward {
  TensorRef gate, up, dy;   // [M, F]
  MutTensorRef dgate, dup;  // [M, F] written; dup may be dy
};
void swiglu_forward(Context&, const SwiGluForward&);
void swiglu_backward(Context&, const SwiGluBackward&);

}  // namespace coca::ops

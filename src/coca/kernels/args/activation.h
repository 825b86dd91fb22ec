// coca/kernels/args/activation.h - what activation takes; ops/activation.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/kernels/args/implementation.h"

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

// y = silu(gate) * up, silu(x) = x / (1 + exp(-x)) (Shazeer 2020).
struct SwiGluForward {
  TensorRef gate, up;  // [M, F]
  MutTensorRef y;      // [M, F] written
};
struct SwiGluBackward {
  TensorRef gate, up, dy;   // [M, F]
  MutTensorRef dgate, dup;  // [M, F] written; dup may be dy
};

struct GeluFunctions {
  void (*forward)(Context&, const GeluForward&);
  void (*backward)(Context&, const GeluBackward&);
};
using GeluImpl = Implementation<GeluFunctions>;

struct SwiGluFunctions {
  void (*forward)(Context&, const SwiGluForward&);
  void (*backward)(Context&, const SwiGluBackward&);
};
using SwiGluImpl = Implementation<SwiGluFunctions>;

}  // namespace coca::ops

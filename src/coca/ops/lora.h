// coca/ops/lora.h - a low-rank addition to a linear layer (Hu et al. 2021): y += scale * B (A dropout(x)), and its
// gradients. Math: docs/math/lora.md. The products are those of linear.h.
// x, a, b and dy are f32 or bf16, all of one type; y and dx are f32 or bf16 of their own choice; da and db are f32.
// Nothing is kept for the backward pass: dropout's mask follows from its key, and A x is formed again.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/tensor/context.h"

namespace coca::ops {

// An element stays with probability 1 - rate, divided by that; which do is a function of the key and their place.
struct Dropout {
  float rate = 0.0f;  // 0: all stay
  uint64_t key = 0;
};

struct LoraForward {
  TensorRef x;     // [M, K], contiguous
  TensorRef a, b;  // [R, K] [N, R]
  float scale = 1.0f;
  Dropout dropout;
  MutTensorRef y;  // [M, N] accumulated (+=)
};
struct LoraBackward {
  TensorRef x, a, b, dy;  // as above; dy [M, N]
  float scale = 1.0f;
  Dropout dropout;
  MutTensorRef dx;      // [M, K] accumulated (+=); empty: not wanted
  MutTensorRef da, db;  // [R, K] [N, R] accumulated (+=); empty: not wanted
};

void lora_forward(Context&, const LoraForward&);
void lora_backward(Context&, const LoraBackward&);

}  // namespace coca::ops

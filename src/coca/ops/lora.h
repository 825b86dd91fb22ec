// coca/ops/lora.h - a low-rank addition to a linear layer (Hu et al. 2021): y += scale * B (A dropout(x)), and its
// gradients. Math: docs/math/lora.md. The products are those of linear.h.
// x, a, b and dy are f32 or bf16, all of one type; y and dx are f32 or bf16 of their own choice; da and db are f32.
// Nothing is kept for the backward pass: dropout's mask follows from its key, and A x is formed again.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/lora.h"

namespace coca::ops {

void lora_forward(Context&, const LoraForward&);
void lora_backward(Context&, const LoraBackward&);

}  // namespace coca::ops

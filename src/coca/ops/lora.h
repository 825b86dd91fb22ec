// coca/ops/lora.h - a low-rank addition to a linear layer (Hu et al. 2021): y += scale * B (A dropout(x)), and its
// gradients. Math: docs/math/lora.md. The products are those of linear.h.
// x, a, b and dy are f32 or bf16, all of one type; y and dx are each f32 or bf16; da and db are f32.
// Nothing is saved for the backward pass: dropout's mask follows from its key, and A x is computed again.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/lora.h"

namespace coca::ops {

void lora_forward(Context&, const LoraForward&);
void lora_backward(Context&, const LoraBackward&);

}  // namespace coca::ops

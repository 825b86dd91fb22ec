// coca/ops/heads.h - whole heads of [B, N, H, D] tensors are set to zero, copied and added; strides before D are free.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/heads.h"

namespace coca::ops {

// t = 0; F32 or BF16.
void zero_heads(Context&, MutTensorRef t);
// to = from, of the same shape. Both have the same type, which may be any, or one is F32 and the other BF16 (rounded
// once).
void copy_heads(Context&, TensorRef from, MutTensorRef to);
// to += from, of the same shape, each F32 or BF16; summed in fp32 and rounded once.
void add_heads(Context&, TensorRef from, MutTensorRef to);

}  // namespace coca::ops

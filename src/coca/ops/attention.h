// coca/ops/attention.h - scaled dot-product attention with online softmax, forward and backward: no N x S tensor.
// Math: docs/math/attention.md. CoCA calls it with the outputs of collinear.h, RoPE with rotated q and k.
// Saved for backward: o and lse. Deterministic: the same bits for any number of threads.
// q, k, v, o, d_o, dq, dk, dv are f32 or bf16, all of one type; lse, slopes and decay are f32. bf16 runs as
// `avx512_bf16` (dot products of bf16 with fp32 sums; probabilities and their gradients are rounded to bf16, denormal
// numbers count as zero) if the CPU supports it, else as `cpu` (widened to fp32 tile by tile, rounded only when
// stored). On a GPU, bf16 runs as `cudnn` where cuDNN takes the call (docs/decisions/020), else as `cuda`. Scores must
// be finite in fp32: an infinite or NaN score makes its row NaN, as in softmax. Probabilities below exp(-87) times the
// row's largest are zero.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/attention.h"

namespace coca::ops {

void attention_forward(Context&, const AttentionOptions&, const AttentionForward&);
void attention_backward(Context&, const AttentionOptions&, const AttentionBackward&);
// ALiBi's slopes for H heads (Press et al. 2022, get_slopes of the official code).
std::vector<float> alibi_slopes(int64_t H);

}  // namespace coca::ops

// coca/kernels/cpu/cross_entropy.h - softmax cross entropy over a block of contiguous rows of logits
// (Highway). Math: docs/math/cross_entropy.md. A negative target marks a row without loss.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/base/dtype.h"

namespace coca::cpu {

struct LossRows {
  const float* logits = nullptr;     // [rows, V]
  const int32_t* targets = nullptr;  // [rows]
  int64_t V = 0;
};

// nll[m] = lse_m - logits[m, target]; 0 for rows without a target. lse may be null.
void cross_entropy_rows(const LossRows&, float* nll, float* lse, int64_t rows) noexcept;

// dlogits = scale (exp(logits - lse) - onehot); may be logits.
void cross_entropy_rows_backward(const LossRows&, const float* lse, float scale, float* dlogits, int64_t rows) noexcept;

// Both at once, one exp a logit. dlogits is `logits` itself, or a bf16 array beside it (rounded once; the logits are
// then overwritten with scratch).
void cross_entropy_rows_fused(float* logits, const int32_t* targets, int64_t V, float scale, float* nll, float* dlogits,
                              int64_t rows) noexcept;
void cross_entropy_rows_fused(float* logits, const int32_t* targets, int64_t V, float scale, float* nll, BF16* dlogits,
                              int64_t rows) noexcept;

}  // namespace coca::cpu

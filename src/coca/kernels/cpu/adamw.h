// coca/kernels/cpu/adamw.h - the AdamW update and the sum of squares over n elements (Highway).
// Math: docs/math/adamw.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/base/dtype.h"

namespace coca::cpu {

// The scalars of one step, ready to use: the bias corrections are folded into step_size and root_scale.
struct AdamWFactors {
  float grad_scale = 1.0f;
  float beta1 = 0.9f, one_minus_beta1 = 0.1f;
  float beta2 = 0.95f, one_minus_beta2 = 0.05f;
  float decay = 1.0f;       // 1 - learning_rate * weight_decay
  float step_size = 1e-3f;  // learning_rate / (1 - beta1^step)
  float root_scale = 1.0f;  // 1 / sqrt(1 - beta2^step)
  float eps = 1e-8f;
};
// copy, when not null, is written with the updated parameters, rounded.
void adamw_update(const AdamWFactors&, const float* grad, float* param, float* m, float* v, BF16* copy,
                  int64_t n) noexcept;

double sum_of_squares_block(const float* x, int64_t n) noexcept;

}  // namespace coca::cpu

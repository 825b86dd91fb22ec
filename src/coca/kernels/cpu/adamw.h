// coca/kernels/cpu/adamw.h - the AdamW update and the sum of squares over n elements (Highway).
// Math: docs/math/adamw.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/kernels/args/adamw_factors.h"

namespace coca::cpu {

// copy, when not null, is written with the updated parameters, rounded.
void adamw_update(const ops::AdamWFactors&, const float* grad, float* param, float* m, float* v, BF16* copy,
                  int64_t n) noexcept;

double sum_of_squares_block(const float* x, int64_t n) noexcept;

}  // namespace coca::cpu

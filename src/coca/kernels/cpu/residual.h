// coca/kernels/cpu/residual.h - sums of two or three streams over n elements (Highway). y may be an input.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/base/dtype.h"

namespace coca::cpu {

// y = a + b, or (a + b) + c when c is not null.
void residual_sum(const float* a, const float* b, const float* c, float* y, int64_t n) noexcept;
void residual_sum(const float* a, const BF16* b, const BF16* c, float* y, int64_t n) noexcept;

}  // namespace coca::cpu

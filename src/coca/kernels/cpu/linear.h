// coca/kernels/cpu/linear.h - what surrounds linear's matrix products: bias rows and column sums (Highway).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/base/dtype.h"

namespace coca::cpu {

// y[m, n] += b[n] for `rows` rows at distance ld.
void add_bias_rows(const float* b, float* y, int64_t ld, int64_t rows, int64_t cols) noexcept;

// y[m, n] += x[m, n], rows at distances ldx and ldy.
void add_rows(const BF16* x, int64_t ldx, float* y, int64_t ldy, int64_t rows, int64_t cols) noexcept;

// out[n] += sum over m of x[m, n], rows at distance ld, in the order of the rows.
void add_column_sums(const float* x, int64_t ld, int64_t rows, int64_t cols, float* out) noexcept;
void add_column_sums(const BF16* x, int64_t ld, int64_t rows, int64_t cols, float* out) noexcept;

}  // namespace coca::cpu

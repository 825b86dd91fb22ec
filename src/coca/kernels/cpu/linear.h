// coca/kernels/cpu/linear.h - the operations around linear's matrix products: bias rows, column sums, and the product
// of a few rows with bf16 weights (Highway).
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

// c[m, n] = a[m, k] b[n, k]^T, or c += it if beta is 1; rows at distances lda, ldb and ldc. For few rows of a: b is
// read once and widened in registers, so that bf16 weights cost half as much as fp32 ones. An element's bits depend on
// k alone.
void dot_rows(const BF16* a, int64_t lda, const BF16* b, int64_t ldb, int64_t m, int64_t n, int64_t k, float beta,
              float* c, int64_t ldc) noexcept;

}  // namespace coca::cpu

// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/linear.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/linear.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "coca/kernels/cpu/bf16-inl.h"
#include "coca/kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

// y[m, n] += x[m, n]; ldx = 0 adds one row to all.
template <typename T>
void add_to_rows(const T* x, int64_t ldx, float* y, int64_t ldy, int64_t rows, int64_t cols) {
  for (int64_t m = 0; m < rows; ++m) {
    const T* from = x + m * ldx;
    float* row = y + m * ldy;
    for_lanes(cols, [&](auto d, int64_t i)
                        HWY_ATTR { hn::StoreU(hn::Add(hn::LoadU(d, row + i), load_f32(d, from + i)), d, row + i); });
  }
}
void add_f32_rows(const float* x, int64_t ldx, float* y, int64_t ldy, int64_t rows, int64_t cols) {
  add_to_rows(x, ldx, y, ldy, rows, cols);
}
void add_bf16_rows(const BF16* x, int64_t ldx, float* y, int64_t ldy, int64_t rows, int64_t cols) {
  add_to_rows(x, ldx, y, ldy, rows, cols);
}

// Four rows a time: a quarter of the traffic on `out`, which stays in the first cache.
template <typename T>
void column_sums(const T* x, int64_t ld, int64_t rows, int64_t cols, float* out) {
  int64_t m = 0;
  for (; m + 4 <= rows; m += 4) {
    const T *r0 = x + m * ld, *r1 = r0 + ld, *r2 = r1 + ld, *r3 = r2 + ld;
    for_lanes(cols, [&](auto d, int64_t i) HWY_ATTR {
      const auto low = hn::Add(load_f32(d, r0 + i), load_f32(d, r1 + i));
      const auto high = hn::Add(load_f32(d, r2 + i), load_f32(d, r3 + i));
      hn::StoreU(hn::Add(hn::LoadU(d, out + i), hn::Add(low, high)), d, out + i);
    });
  }
  for (; m < rows; ++m) add_to_rows(x + m * ld, 0, out, cols, 1, cols);
}
void column_sums_f32(const float* x, int64_t ld, int64_t rows, int64_t cols, float* out) {
  column_sums(x, ld, rows, cols, out);
}
void column_sums_bf16(const BF16* x, int64_t ld, int64_t rows, int64_t cols, float* out) {
  column_sums(x, ld, rows, cols, out);
}

// Rows x Cols dot products of rows of a and b. Whatever the block, an element is the same sum in the same order.
template <int Rows, int Cols>
void dot_block(const float* a, int64_t lda, const BF16* b, int64_t ldb, int64_t k, float beta, float* c, int64_t ldc) {
  const hn::ScalableTag<float> d;
  const auto N = static_cast<int64_t>(hn::Lanes(d));
  hn::Vec<decltype(d)> sums[Rows][Cols];
  for (auto& row : sums)
    for (auto& sum : row) sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + N <= k; i += N) {
    hn::Vec<decltype(d)> x[Rows];
    for (int r = 0; r < Rows; ++r) x[r] = hn::LoadU(d, a + r * lda + i);
    for (int j = 0; j < Cols; ++j) {
      const auto w = load_f32(d, b + j * ldb + i);
      for (int r = 0; r < Rows; ++r) sums[r][j] = hn::MulAdd(x[r], w, sums[r][j]);
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int j = 0; j < Cols; ++j) {
      float sum = hn::GetLane(hn::SumOfLanes(d, sums[r][j]));
      for (int64_t t = i; t < k; ++t) sum += a[r * lda + t] * static_cast<float>(b[j * ldb + t]);
      float& out = c[r * ldc + j];
      out = beta == 0.0f ? sum : out + sum;
    }
}
template <int Rows>
void dot_strip(const float* a, int64_t lda, const BF16* b, int64_t ldb, int64_t n, int64_t k, float beta, float* c, int64_t ldc) {
  int64_t j = 0;
  for (; j + 4 <= n; j += 4) dot_block<Rows, 4>(a, lda, b + j * ldb, ldb, k, beta, c + j, ldc);
  for (; j < n; ++j) dot_block<Rows, 1>(a, lda, b + j * ldb, ldb, k, beta, c + j, ldc);
}
// Four rows of b at a time: they stay in the first cache for all rows of a.
void dot_rows_bf16(const float* a, int64_t lda, const BF16* b, int64_t ldb, int64_t m, int64_t n, int64_t k, float beta, float* c,
                   int64_t ldc) {
  for (int64_t j = 0; j < n; j += 4) {
    const int64_t cols = HWY_MIN(int64_t{4}, n - j);
    int64_t r = 0;
    for (; r + 2 <= m; r += 2) dot_strip<2>(a + r * lda, lda, b + j * ldb, ldb, cols, k, beta, c + r * ldc + j, ldc);
    for (; r < m; ++r) dot_strip<1>(a + r * lda, lda, b + j * ldb, ldb, cols, k, beta, c + r * ldc + j, ldc);
  }
}

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(add_f32_rows);
HWY_EXPORT(add_bf16_rows);
HWY_EXPORT(column_sums_f32);
HWY_EXPORT(column_sums_bf16);
HWY_EXPORT(dot_rows_bf16);

void add_bias_rows(const float* b, float* y, int64_t ld, int64_t rows, int64_t cols) noexcept {
  HWY_DYNAMIC_DISPATCH(add_f32_rows)(b, 0, y, ld, rows, cols);
}
void add_rows(const BF16* x, int64_t ldx, float* y, int64_t ldy, int64_t rows, int64_t cols) noexcept {
  HWY_DYNAMIC_DISPATCH(add_bf16_rows)(x, ldx, y, ldy, rows, cols);
}
void add_column_sums(const float* x, int64_t ld, int64_t rows, int64_t cols, float* out) noexcept {
  HWY_DYNAMIC_DISPATCH(column_sums_f32)(x, ld, rows, cols, out);
}
void add_column_sums(const BF16* x, int64_t ld, int64_t rows, int64_t cols, float* out) noexcept {
  HWY_DYNAMIC_DISPATCH(column_sums_bf16)(x, ld, rows, cols, out);
}

void dot_rows(const float* a, int64_t lda, const BF16* b, int64_t ldb, int64_t m, int64_t n, int64_t k, float beta, float* c, int64_t ldc) noexcept {
  HWY_DYNAMIC_DISPATCH(dot_rows_bf16)(a, lda, b, ldb, m, n, k, beta, c, ldc);
}

}  // namespace coca::cpu
#endif  // HWY_ONCE

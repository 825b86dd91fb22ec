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

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(add_f32_rows);
HWY_EXPORT(add_bf16_rows);
HWY_EXPORT(column_sums_f32);
HWY_EXPORT(column_sums_bf16);

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

}  // namespace coca::cpu
#endif  // HWY_ONCE

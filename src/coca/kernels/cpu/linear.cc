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

// The bf16 of even and of odd places in a vector of pairs, as floats.
template <class V>
HWY_INLINE auto even_places(V pairs) {
  return hn::BitCast(hn::RebindToFloat<hn::DFromV<V>>(), hn::ShiftLeft<16>(pairs));
}
template <class V>
HWY_INLINE auto odd_places(V pairs) {
  return hn::BitCast(hn::RebindToFloat<hn::DFromV<V>>(), hn::And(pairs, hn::Set(hn::DFromV<V>(), 0xffff0000u)));
}

// Dot products of a row of a with four rows of b, which may be one row again.
HWY_INLINE void dot_four(const BF16* a, const BF16* b0, const BF16* b1, const BF16* b2, const BF16* b3, int64_t k,
                         float* out) {
  const hn::ScalableTag<float> d;
  const hn::ScalableTag<uint32_t> du;
  const auto N = 2 * static_cast<int64_t>(hn::Lanes(du));
#if HWY_TARGET == HWY_SCALAR  // has no vector of two
  const auto pairs_at = [&](const BF16* p) { return hn::Set(du, make_pair(p[0], p[1])); };
#else
  const hn::Repartition<uint16_t, decltype(du)> d16;
  const auto pairs_at = [&](const BF16* p) HWY_ATTR { return hn::BitCast(du, hn::LoadU(d16, &p->bits)); };
#endif
  auto e0 = hn::Zero(d), e1 = e0, e2 = e0, e3 = e0, o0 = e0, o1 = e0, o2 = e0, o3 = e0;
  int64_t i = 0;
  for (; i + N <= k; i += N) {
    const auto x = pairs_at(a + i), w0 = pairs_at(b0 + i), w1 = pairs_at(b1 + i), w2 = pairs_at(b2 + i),
               w3 = pairs_at(b3 + i);
    const auto even = even_places(x), odd = odd_places(x);
    e0 = hn::MulAdd(even, even_places(w0), e0);
    o0 = hn::MulAdd(odd, odd_places(w0), o0);
    e1 = hn::MulAdd(even, even_places(w1), e1);
    o1 = hn::MulAdd(odd, odd_places(w1), o1);
    e2 = hn::MulAdd(even, even_places(w2), e2);
    o2 = hn::MulAdd(odd, odd_places(w2), o2);
    e3 = hn::MulAdd(even, even_places(w3), e3);
    o3 = hn::MulAdd(odd, odd_places(w3), o3);
  }
  const auto rest = [&](auto sum, const BF16* b) HWY_ATTR {
    float total = hn::GetLane(hn::SumOfLanes(d, sum));
    for (int64_t t = i; t < k; ++t) total += static_cast<float>(a[t]) * static_cast<float>(b[t]);
    return total;
  };
  out[0] = rest(hn::Add(e0, o0), b0);
  out[1] = rest(hn::Add(e1, o1), b1);
  out[2] = rest(hn::Add(e2, o2), b2);
  out[3] = rest(hn::Add(e3, o3), b3);
}
// Four rows of b at a time: they stay in the first caches for all rows of a.
void dot_rows_bf16(const BF16* a, int64_t lda, const BF16* b, int64_t ldb, int64_t m, int64_t n, int64_t k, float beta,
                   float* c, int64_t ldc) {
  for (int64_t j = 0; j < n; j += 4) {
    const BF16* rows[4];
    for (int64_t q = 0; q < 4; ++q) rows[q] = b + HWY_MIN(j + q, n - 1) * ldb;
    for (int64_t r = 0; r < m; ++r) {
      float sums[4];
      dot_four(a + r * lda, rows[0], rows[1], rows[2], rows[3], k, sums);
      for (int64_t q = 0; q < HWY_MIN(int64_t{4}, n - j); ++q) {
        float& out = c[r * ldc + j + q];
        out = beta == 0.0f ? sums[q] : out + sums[q];
      }
    }
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

void dot_rows(const BF16* a, int64_t lda, const BF16* b, int64_t ldb, int64_t m, int64_t n, int64_t k, float beta,
              float* c, int64_t ldc) noexcept {
  HWY_DYNAMIC_DISPATCH(dot_rows_bf16)(a, lda, b, ldb, m, n, k, beta, c, ldc);
}

}  // namespace coca::cpu
#endif  // HWY_ONCE

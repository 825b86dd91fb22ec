// A row is read twice for its statistics and once to write; it stays in the first cache meanwhile.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/norm.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/norm.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "coca/kernels/cpu/bf16-inl.h"
#include "coca/kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

// Sum of (x - mean)^2: two passes, because sum x^2 - C mean^2 cancels.
template <typename X>
HWY_INLINE float centred_squares(const X* x, int64_t C, float mean) {
  return sum_of(C, [&](auto d, int64_t i) HWY_ATTR {
    const auto centred = hn::Sub(load_f32(d, x + i), hn::Set(d, mean));
    return hn::Mul(centred, centred);
  });
}

template <typename X, typename Y>
void norm_forward_block(const NormRows<X, Y>& a, int64_t rows) {
  const float inv_C = 1.0f / static_cast<float>(a.C);
  for (int64_t m = 0; m < rows; ++m) {
    const X* x = a.x + m * a.C;
    Y* y = a.y + m * a.C;
    float mean = 0.0f;
    if (a.kind == Norm::kLayer)
      mean = inv_C * sum_of(a.C, [&](auto d, int64_t i) HWY_ATTR { return load_f32(d, x + i); });
    const float r = 1.0f / std::sqrt(inv_C * centred_squares(x, a.C, mean) + a.eps);
    for_lanes(a.C, [&](auto d, int64_t i) HWY_ATTR {
      const auto xhat = hn::Mul(hn::Sub(load_f32(d, x + i), hn::Set(d, mean)), hn::Set(d, r));
      const auto bias = a.b ? hn::LoadU(d, a.b + i) : hn::Zero(d);
      store_f32(hn::MulAdd(xhat, hn::LoadU(d, a.w + i), bias), d, y + i);
    });
    if (a.stat) {
      a.stat[2 * m] = mean;
      a.stat[2 * m + 1] = r;
    }
  }
}

// The two sums of one row: of g = dy w and of g xhat; on the way dw += dy xhat, db += dy.
struct NormSums {
  float g, gx;
};
template <typename X, typename DY, typename DX>
HWY_INLINE NormSums norm_sums(const NormRowsBackward<X, DY, DX>& a, const X* x, const DY* dy, float mean, float r) {
  const hn::ScalableTag<float> d;
  auto sum_g = hn::Zero(d), sum_gx = hn::Zero(d);
  const hn::CappedTag<float, 1> d1;
  auto rest_g = hn::Zero(d1), rest_gx = hn::Zero(d1);
  const auto step = [&](auto tag, int64_t i, auto& sg, auto& sgx) HWY_ATTR {
    const auto xhat = hn::Mul(hn::Sub(load_f32(tag, x + i), hn::Set(tag, mean)), hn::Set(tag, r));
    const auto dyi = load_f32(tag, dy + i), g = hn::Mul(dyi, hn::LoadU(tag, a.w + i));
    sg = hn::Add(sg, g);
    sgx = hn::MulAdd(g, xhat, sgx);
    hn::StoreU(hn::MulAdd(dyi, xhat, hn::LoadU(tag, a.dw + i)), tag, a.dw + i);
    if (a.db) hn::StoreU(hn::Add(dyi, hn::LoadU(tag, a.db + i)), tag, a.db + i);
  };
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= a.C; i += lanes) step(d, i, sum_g, sum_gx);
  for (; i < a.C; ++i) step(d1, i, rest_g, rest_gx);
  return {hn::GetLane(hn::SumOfLanes(d, sum_g)) + hn::GetLane(rest_g),
          hn::GetLane(hn::SumOfLanes(d, sum_gx)) + hn::GetLane(rest_gx)};
}

// y = xhat w + b, xhat = (x - mean) r:  dx += r (g - mean(g) - xhat mean(g xhat)), without mean(g) for
// RMSNorm.
template <typename X, typename DY, typename DX>
void norm_backward_block(const NormRowsBackward<X, DY, DX>& a, int64_t rows) {
  const float inv_C = 1.0f / static_cast<float>(a.C);
  for (int64_t m = 0; m < rows; ++m) {
    const X* x = a.x + m * a.C;
    const DY* dy = a.dy + m * a.C;
    DX* dx = a.dx + m * a.C;
    const float mean = a.stat[2 * m], r = a.stat[2 * m + 1];
    const NormSums sums = norm_sums(a, x, dy, mean, r);
    const float mean_g = a.kind == Norm::kLayer ? inv_C * sums.g : 0.0f, mean_gx = inv_C * sums.gx;
    for_lanes(a.C, [&](auto d, int64_t i) HWY_ATTR {
      const auto xhat = hn::Mul(hn::Sub(load_f32(d, x + i), hn::Set(d, mean)), hn::Set(d, r));
      const auto g = hn::MulSub(load_f32(d, dy + i), hn::LoadU(d, a.w + i), hn::Set(d, mean_g));
      const auto inner = hn::NegMulAdd(xhat, hn::Set(d, mean_gx), g);
      const auto before = a.dx_write == NormDx::kAdd ? load_f32(d, dx + i) : hn::Zero(d);
      store_f32(hn::MulAdd(inner, hn::Set(d, r), before), d, dx + i);
    });
  }
}

// One name per combination of element types, for the dispatch tables.
constexpr auto& norm_forward_f32 = norm_forward_block<float, float>;
constexpr auto& norm_forward_f32_bf16 = norm_forward_block<float, BF16>;
constexpr auto& norm_forward_bf16 = norm_forward_block<BF16, BF16>;
constexpr auto& norm_backward_f32 = norm_backward_block<float, float, float>;
constexpr auto& norm_backward_f32_bf16 = norm_backward_block<float, BF16, float>;
constexpr auto& norm_backward_bf16 = norm_backward_block<BF16, BF16, BF16>;

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(norm_forward_f32);
HWY_EXPORT(norm_forward_f32_bf16);
HWY_EXPORT(norm_forward_bf16);
HWY_EXPORT(norm_backward_f32);
HWY_EXPORT(norm_backward_f32_bf16);
HWY_EXPORT(norm_backward_bf16);

void norm_rows(const NormRows<float, float>& a, int64_t rows) noexcept {
  HWY_DYNAMIC_DISPATCH(norm_forward_f32)(a, rows);
}
void norm_rows(const NormRows<float, BF16>& a, int64_t rows) noexcept {
  HWY_DYNAMIC_DISPATCH(norm_forward_f32_bf16)(a, rows);
}
void norm_rows(const NormRows<BF16, BF16>& a, int64_t rows) noexcept {
  HWY_DYNAMIC_DISPATCH(norm_forward_bf16)(a, rows);
}
void norm_rows_backward(const NormRowsBackward<float, float, float>& a, int64_t rows) noexcept {
  HWY_DYNAMIC_DISPATCH(norm_backward_f32)(a, rows);
}
void norm_rows_backward(const NormRowsBackward<float, BF16, float>& a, int64_t rows) noexcept {
  HWY_DYNAMIC_DISPATCH(norm_backward_f32_bf16)(a, rows);
}
void norm_rows_backward(const NormRowsBackward<BF16, BF16, BF16>& a, int64_t rows) noexcept {
  HWY_DYNAMIC_DISPATCH(norm_backward_bf16)(a, rows);
}

}  // namespace coca::cpu
#endif  // HWY_ONCE

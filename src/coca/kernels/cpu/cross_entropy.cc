// One pass for the maximum, one for the exponentials. NaN in a row makes its loss NaN (exp_of keeps it).
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/cross_entropy.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/cross_entropy.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "coca/kernels/cpu/bf16-inl.h"
#include "coca/kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

HWY_INLINE float row_max(const float* x, int64_t n) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  float top = x[0];
  int64_t i = 0;
  if (n >= lanes) {
    auto m0 = hn::LoadU(d, x), m1 = m0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
      m0 = hn::Max(m0, hn::LoadU(d, x + i));
      m1 = hn::Max(m1, hn::LoadU(d, x + i + lanes));
    }
    top = hn::GetLane(hn::MaxOfLanes(d, hn::Max(m0, m1)));
  }
  for (; i < n; ++i) top = std::max(top, x[i]);
  return top;
}

HWY_INLINE float sum_exp(const float* x, int64_t n, float shift) {
  return sum_of(n,
                [&](auto d, int64_t i) HWY_ATTR { return exp_of(d, hn::Sub(hn::LoadU(d, x + i), hn::Set(d, shift))); });
}

void loss_block(const LossRows& a, float* nll, float* lse, int64_t rows) {
  for (int64_t m = 0; m < rows; ++m) {
    const float* x = a.logits + m * a.V;
    const int32_t target = a.targets[m];
    nll[m] = 0.0f;
    if (target < 0 && lse == nullptr) continue;
    const float top = row_max(x, a.V), log_sum = std::log(sum_exp(x, a.V, top));
    if (lse) lse[m] = top + log_sum;
    if (target >= 0) nll[m] = log_sum + (top - x[target]);
  }
}

void loss_grad_block(const LossRows& a, const float* lse, float scale, float* dlogits, int64_t rows) {
  for (int64_t m = 0; m < rows; ++m) {
    const float* x = a.logits + m * a.V;
    float* dx = dlogits + m * a.V;
    if (a.targets[m] < 0) {
      std::fill_n(dx, a.V, 0.0f);
      continue;
    }
    const float shift = lse[m];
    for_lanes(a.V, [&](auto d, int64_t i) HWY_ATTR {
      const auto p = exp_of(d, hn::Sub(hn::LoadU(d, x + i), hn::Set(d, shift)));
      hn::StoreU(hn::Mul(p, hn::Set(d, scale)), d, dx + i);
    });
    dx[a.targets[m]] -= scale;
  }
}

template <typename T>
void loss_fused_block(float* logits, const int32_t* targets, int64_t V, float scale, float* nll, T* dlogits,
                      int64_t rows) {
  for (int64_t m = 0; m < rows; ++m) {
    float* x = logits + m * V;
    T* dx = dlogits + m * V;
    const int32_t target = targets[m];
    nll[m] = 0.0f;
    if (target < 0) {
      std::fill_n(dx, V, static_cast<T>(0.0f));
      continue;
    }
    const float top = row_max(x, V), gap = top - x[target];
    const float sum = sum_of(V, [&](auto d, int64_t i) HWY_ATTR {
      const auto e = exp_of(d, hn::Sub(hn::LoadU(d, x + i), hn::Set(d, top)));
      hn::StoreU(e, d, x + i);
      return e;
    });
    nll[m] = std::log(sum) + gap;
    const float factor = scale / sum, at_target = x[target] * factor - scale;
    for_lanes(
        V, [&](auto d, int64_t i) HWY_ATTR { store_f32(hn::Mul(hn::LoadU(d, x + i), hn::Set(d, factor)), d, dx + i); });
    dx[target] = static_cast<T>(at_target);
  }
}

// One name per element type, for the dispatch tables.
constexpr auto& loss_fused_f32 = loss_fused_block<float>;
constexpr auto& loss_fused_bf16 = loss_fused_block<BF16>;

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(loss_block);
HWY_EXPORT(loss_grad_block);
HWY_EXPORT(loss_fused_f32);
HWY_EXPORT(loss_fused_bf16);

void cross_entropy_rows(const LossRows& a, float* nll, float* lse, int64_t rows) noexcept {
  HWY_DYNAMIC_DISPATCH(loss_block)(a, nll, lse, rows);
}
void cross_entropy_rows_backward(const LossRows& a, const float* lse, float scale, float* dlogits,
                                 int64_t rows) noexcept {
  HWY_DYNAMIC_DISPATCH(loss_grad_block)(a, lse, scale, dlogits, rows);
}
void cross_entropy_rows_fused(float* logits, const int32_t* targets, int64_t V, float scale, float* nll, float* dlogits,
                              int64_t rows) noexcept {
  HWY_DYNAMIC_DISPATCH(loss_fused_f32)(logits, targets, V, scale, nll, dlogits, rows);
}
void cross_entropy_rows_fused(float* logits, const int32_t* targets, int64_t V, float scale, float* nll, BF16* dlogits,
                              int64_t rows) noexcept {
  HWY_DYNAMIC_DISPATCH(loss_fused_bf16)(logits, targets, V, scale, nll, dlogits, rows);
}

}  // namespace coca::cpu
#endif  // HWY_ONCE

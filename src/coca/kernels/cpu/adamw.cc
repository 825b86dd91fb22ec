// One pass over grad, param, m and v: 28 bytes an element (30 with the bf16 copy), bound by memory.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/adamw.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/adamw.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "coca/kernels/cpu/bf16-inl.h"
#include "coca/kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

// m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2,
// param = decay param - step_size m / (sqrt(v) root_scale + eps)
void adamw_block(const ops::AdamWFactors& f, const float* grad, float* param, float* m, float* v, BF16* copy,
                 int64_t n) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto g = hn::Mul(hn::LoadU(d, grad + i), hn::Set(d, f.grad_scale));
    const auto mi = hn::MulAdd(hn::LoadU(d, m + i), hn::Set(d, f.beta1), hn::Mul(g, hn::Set(d, f.one_minus_beta1)));
    const auto vi =
        hn::MulAdd(hn::LoadU(d, v + i), hn::Set(d, f.beta2), hn::Mul(hn::Mul(g, g), hn::Set(d, f.one_minus_beta2)));
    const auto root = hn::MulAdd(hn::Sqrt(vi), hn::Set(d, f.root_scale), hn::Set(d, f.eps));
    const auto step = hn::Mul(hn::Set(d, f.step_size), hn::Div(mi, root));
    hn::StoreU(mi, d, m + i);
    hn::StoreU(vi, d, v + i);
    const auto updated = hn::MulSub(hn::LoadU(d, param + i), hn::Set(d, f.decay), step);
    hn::StoreU(updated, d, param + i);
    if (copy) store_f32(updated, d, copy + i);
  });
}

double squares_block(const float* x, int64_t n) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
  const auto add = [&](int64_t i, auto& sum) HWY_ATTR {
    const auto value = hn::PromoteTo(d, hn::LoadU(df, x + i));
    sum = hn::MulAdd(value, value, sum);
  };
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    add(i, s0);
    add(i + lanes, s1);
    add(i + 2 * lanes, s2);
    add(i + 3 * lanes, s3);
  }
  for (; i + lanes <= n; i += lanes) add(i, s0);
  double sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  for (; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(adamw_block);
HWY_EXPORT(squares_block);

void adamw_update(const ops::AdamWFactors& factors, const float* grad, float* param, float* m, float* v, BF16* copy,
                  int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(adamw_block)(factors, grad, param, m, v, copy, n);
}
double sum_of_squares_block(const float* x, int64_t n) noexcept { return HWY_DYNAMIC_DISPATCH(squares_block)(x, n); }

}  // namespace coca::cpu
#endif  // HWY_ONCE

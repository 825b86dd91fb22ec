// Sums of streams; bound by memory. Math: docs/math/residual.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/residual.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/residual.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "coca/kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

void sum_streams(const float* a, const float* b, const float* c, float* y, int64_t n) {
  if (c == nullptr) {
    for_lanes(n, [&](auto d, int64_t i)
                     HWY_ATTR { hn::StoreU(hn::Add(hn::LoadU(d, a + i), hn::LoadU(d, b + i)), d, y + i); });
    return;
  }
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    hn::StoreU(hn::Add(hn::Add(hn::LoadU(d, a + i), hn::LoadU(d, b + i)), hn::LoadU(d, c + i)), d, y + i);
  });
}

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(sum_streams);

void residual_sum(const float* a, const float* b, const float* c, float* y, int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(sum_streams)(a, b, c, y, n);
}

}  // namespace coca::cpu
#endif  // HWY_ONCE

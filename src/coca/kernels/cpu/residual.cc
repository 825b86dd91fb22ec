// Sums of streams; bound by memory. Math: docs/math/residual.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/residual.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/residual.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "coca/kernels/cpu/bf16-inl.h"
#include "coca/kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

template <typename T>
void sum_streams(const float* a, const T* b, const T* c, float* y, int64_t n) {
  if (c == nullptr) {
    for_lanes(
        n, [&](auto d, int64_t i) HWY_ATTR { hn::StoreU(hn::Add(hn::LoadU(d, a + i), load_f32(d, b + i)), d, y + i); });
    return;
  }
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    hn::StoreU(hn::Add(hn::Add(hn::LoadU(d, a + i), load_f32(d, b + i)), load_f32(d, c + i)), d, y + i);
  });
}

// One name per element type, for the dispatch tables.
constexpr auto& sum_streams_f32 = sum_streams<float>;
constexpr auto& sum_streams_bf16 = sum_streams<BF16>;

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(sum_streams_f32);
HWY_EXPORT(sum_streams_bf16);

void residual_sum(const float* a, const float* b, const float* c, float* y, int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(sum_streams_f32)(a, b, c, y, n);
}
void residual_sum(const float* a, const BF16* b, const BF16* c, float* y, int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(sum_streams_bf16)(a, b, c, y, n);
}

}  // namespace coca::cpu
#endif  // HWY_ONCE

// Six bytes an element, bound by memory. Math: docs/math/cast.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/cast.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/cast.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "coca/kernels/cpu/bf16-inl.h"
#include "coca/kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

template <typename From, typename To>
HWY_INLINE void copy_as(const From* x, To* y, int64_t n) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR { store_f32(load_f32(d, x + i), d, y + i); });
}

void demote(const float* x, BF16* y, int64_t n) { copy_as(x, y, n); }
void promote(const BF16* x, float* y, int64_t n) { copy_as(x, y, n); }

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(demote);
HWY_EXPORT(promote);

void cast(const float* x, BF16* y, int64_t n) noexcept { HWY_DYNAMIC_DISPATCH(demote)(x, y, n); }
void cast(const BF16* x, float* y, int64_t n) noexcept { HWY_DYNAMIC_DISPATCH(promote)(x, y, n); }

}  // namespace coca::cpu
#endif  // HWY_ONCE

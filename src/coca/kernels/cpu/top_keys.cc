// Lanes are keys, so that no sum crosses lanes. Math: docs/math/top_keys.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/top_keys.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/top_keys.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "coca/kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

// Four vectors of keys at a time: their sums hide the latency of the multiply-adds. At most 16 lanes, as everywhere.
void tile_scores(const float* q, const float* tile, int64_t D, float* scores) {
  const hn::CappedTag<float, 16> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t c = 0; c < kTopKeysTile; c += 4 * lanes) {
    auto s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
    const float* column = tile + c;
    for (int64_t i = 0; i < D; ++i, column += kTopKeysTile) {
      const auto x = hn::Set(d, q[i]);
      s0 = hn::MulAdd(x, hn::LoadU(d, column), s0);
      s1 = hn::MulAdd(x, hn::LoadU(d, column + lanes), s1);
      s2 = hn::MulAdd(x, hn::LoadU(d, column + 2 * lanes), s2);
      s3 = hn::MulAdd(x, hn::LoadU(d, column + 3 * lanes), s3);
    }
    hn::StoreU(s0, d, scores + c);
    hn::StoreU(s1, d, scores + c + lanes);
    hn::StoreU(s2, d, scores + c + 2 * lanes);
    hn::StoreU(s3, d, scores + c + 3 * lanes);
  }
}

void mix(float* x, float a, const float* y, float b, int64_t D) {
  for_lanes(D, [&](auto d, int64_t i) HWY_ATTR {
    hn::StoreU(hn::MulAdd(hn::Set(d, a), hn::LoadU(d, x + i), hn::Mul(hn::Set(d, b), hn::LoadU(d, y + i))), d, x + i);
  });
}

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(tile_scores);
HWY_EXPORT(mix);

void top_keys_scores(const float* q, const float* tile, int64_t D, float* scores) noexcept {
  HWY_DYNAMIC_DISPATCH(tile_scores)(q, tile, D, scores);
}
void top_keys_mix(float* x, float a, const float* y, float b, int64_t D) noexcept {
  HWY_DYNAMIC_DISPATCH(mix)(x, a, y, b, D);
}

}  // namespace coca::cpu
#endif  // HWY_ONCE

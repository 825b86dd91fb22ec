// coca/kernels/cpu/softmax-inl.h - one row of online softmax, shared by attention and decode attention.
// Math: docs/math/attention.md. Per-target header: included inside foreach_target.
// SPDX-License-Identifier: Apache-2.0
#if defined(COCA_KERNELS_CPU_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef COCA_KERNELS_CPU_SOFTMAX_INL_H_
#undef COCA_KERNELS_CPU_SOFTMAX_INL_H_
#else
#define COCA_KERNELS_CPU_SOFTMAX_INL_H_
#endif

#include <cmath>
#include <cstdint>
#include <limits>

#include "coca/kernels/cpu/bf16-inl.h"
#include "coca/kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
constexpr float kNegInf = -std::numeric_limits<float>::infinity();

// exp(x) for x <= 0 (a little above does no harm): as exp_of, but zero below -87, where results would be denormal.
template <class D, class V>
HWY_INLINE V exp_of_score(D d, V x) {
  const V low = hn::Set(d, -87.0f);
  const auto lost = hn::Lt(x, low);
  const hn::RebindToSigned<D> di;
  const V bounded = hn::IfThenElse(lost, low, x);
  const auto q = hn::NearestInt(hn::Mul(bounded, hn::Set(d, 1.44269504f)));
  const V y = exp_of_rest(d, bounded, hn::ConvertTo(d, q));
  const V scale = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(q, hn::Set(di, 127))));  // a product, so that NaN stays NaN
  return hn::IfThenZeroElse(lost, hn::Mul(y, scale));
}

// Products [begin, width) of a row times `factor` are scores, width - begin a multiple of 16. p receives exp(score -
// max), max being the largest score of this and earlier calls; E = float: in place or not, Bf16Pair: rounded, begin a
// multiple of 32, the pairs of each 32 from begin / 2 on. Returns what multiplies sums formed before; `sum` is brought
// up to date.
template <class E>
HWY_INLINE float softmax_row(float factor, int64_t begin, int64_t width, const float* row, E* p, float& max,
                             float& sum) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto vf = hn::Set(d, factor);
  auto vmax = hn::Set(d, max);
  for (int64_t c = begin; c < width; c += lanes) vmax = hn::Max(vmax, hn::Mul(hn::LoadU(d, row + c), vf));
  const float new_max = hn::GetLane(hn::MaxOfLanes(d, vmax));
  // No visible key yet: -inf - -inf must not be computed; relative to 0 every probability is zero.
  const auto base = hn::Set(d, new_max == kNegInf ? 0.0f : new_max);
  const auto probability = [&](int64_t c)
                               HWY_ATTR { return exp_of_score(d, hn::MulSub(hn::LoadU(d, row + c), vf, base)); };
  auto vsum = hn::Zero(d);
  if constexpr (kPairs<E>) {
    const hn::RebindToUnsigned<decltype(d)> du;
    for (int64_t c = begin; c < width; c += 32) {
      const auto low = probability(c), high = c + 16 < width ? probability(c + 16) : hn::Zero(d);
      vsum = hn::Add(vsum, hn::Add(low, high));
      hn::StoreU(round_to_pairs(low, high), du, p + c / 2);
    }
  } else {
    for (int64_t c = begin; c < width; c += lanes) {
      const auto e = probability(c);
      vsum = hn::Add(vsum, e);
      hn::StoreU(e, d, p + c);
    }
  }
  const float decay = max == kNegInf ? 1.0f : std::exp(max - new_max);  // before the first key there are no sums
  sum = sum * decay + hn::GetLane(hn::SumOfLanes(d, vsum));
  max = new_max;
  return decay;
}

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

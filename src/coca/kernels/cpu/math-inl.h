// coca/kernels/cpu/math-inl.h - loops over lanes, sums, exp and the normal distribution for Highway kernels.
// Included once per SIMD target, after hwy/foreach_target.h.
// SPDX-License-Identifier: Apache-2.0
#if defined(COCA_KERNELS_CPU_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef COCA_KERNELS_CPU_MATH_INL_H_
#undef COCA_KERNELS_CPU_MATH_INL_H_
#else
#define COCA_KERNELS_CPU_MATH_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class D, class Step>
HWY_INLINE void for_lanes_from(D d, int64_t i, int64_t n, const Step& step) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (; i + lanes <= n; i += lanes) step(d, i);
  if constexpr (hn::MaxLanes(D()) > 1) {
    if (i < n) for_lanes_from(hn::CappedTag<float, hn::MaxLanes(D()) / 2>(), i, n, step);
  }
}

// Calls step(tag, i) for whole vectors of floats, then for the lanes left in shorter and shorter vectors down to one
// lane: the 20 pairs of a head of 40 are one vector of 16 and one of 4. What step computes for a lane must not depend
// on the tag.
template <class Step>
HWY_INLINE void for_lanes(int64_t n, const Step& step) {
  for_lanes_from(hn::ScalableTag<float>(), 0, n, step);
}

// Sum over i < n of term(tag, i): four vectors of partial sums hide the latency and shorten the chains of
// roundings.
template <class Term>
HWY_INLINE float sum_of(int64_t n, const Term& term) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> d1;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = hn::Add(s0, term(d, i));
    s1 = hn::Add(s1, term(d, i + lanes));
    s2 = hn::Add(s2, term(d, i + 2 * lanes));
    s3 = hn::Add(s3, term(d, i + 3 * lanes));
  }
  for (; i + lanes <= n; i += lanes) s0 = hn::Add(s0, term(d, i));
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  for (; i < n; ++i) sum += hn::GetLane(term(d1, i));
  return sum;
}

// exp(x) / 2^q for a whole q within 1/2 of x / ln 2.
template <class D, class V>
HWY_INLINE V exp_of_rest(D d, V x, V q) {
  // r = x - q ln 2 in two parts, the first with spare low bits so that its product is exact.
  const V r = hn::MulAdd(q, hn::Set(d, -1.428606765e-6f), hn::MulAdd(q, hn::Set(d, -0.693145752f), x));
  // Cephes expf: exp(r) = 1 + r + r^2 p(r) for |r| <= ln 2 / 2.
  V p = hn::MulAdd(hn::Set(d, 1.9875691500e-4f), r, hn::Set(d, 1.3981999507e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 8.3334519073e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.1665795894e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6666665459e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.0000001201e-1f));
  return hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), hn::Set(d, 1.0f));
}

// exp(x) within 2 ulp; 0 below -104, inf above 89. Unlike hn::Exp it keeps NaN: comparisons with NaN are
// false, so the clamps let it through and the polynomial carries it.
template <class D, class V>
HWY_INLINE V exp_of(D d, V x) {
  const hn::RebindToSigned<D> di;
  const V low = hn::Set(d, -104.0f), high = hn::Set(d, 89.0f);
  x = hn::IfThenElse(hn::Lt(x, low), low, x);
  x = hn::IfThenElse(hn::Gt(x, high), high, x);
  const auto q = hn::NearestInt(hn::Mul(x, hn::Set(d, 1.44269504f)));
  const V y = exp_of_rest(d, x, hn::ConvertTo(d, q));
  // 2^q in two factors: one alone overflows or is denormal at the ends.
  const auto half = hn::ShiftRight<1>(q), bias = hn::Set(di, 127);
  const V scale0 = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(half, bias)));
  const V scale1 = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::Sub(q, half), bias)));
  return hn::Mul(hn::Mul(y, scale0), scale1);
}

template <class D, class V>
HWY_INLINE V sigmoid(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, exp_of(d, hn::Neg(x))));
}

// s = sigmoid(x) and its derivative s (1 - s), from exp(-|x|): no cancellation in 1 - s, no overflow.
template <class V>
struct Sigmoid {
  V s, slope;
};
template <class D, class V>
HWY_INLINE Sigmoid<V> sigmoid_and_slope(D d, V x) {
  const V one = hn::Set(d, 1.0f), e = exp_of(d, hn::Neg(hn::Abs(x)));
  const V high = hn::Div(one, hn::Add(one, e)), low = hn::Mul(e, high);
  return {hn::IfThenElse(hn::Lt(x, hn::Zero(d)), low, high), hn::Mul(low, high)};
}

// Phi(x), the normal distribution function, and g = exp(-x^2 / 2).
template <class V>
struct Normal {
  V phi, g;
};

// Tails: with a = |x|, Phi(-a) = g H(s) / (a + k), k = 2.5, s = (a - k) / (a + k), where H is nearly constant
// and its polynomial of degree 9 (relative error 2e-8 for a <= 15) is well conditioned; so they keep their
// relative accuracy, unlike 1 + erf. Middle (a < 1): Phi(x) = 1/2 + x P(x^2), degree 4 (4e-8). Both by Remez.
// Phi is within 1.5 * 2^-24 absolute (tests/ops/activation_test.cc).
template <class D, class V>
HWY_INLINE Normal<V> normal(D d, V x) {
  const V a = hn::Abs(x), one = hn::Set(d, 1.0f);
  const V t = hn::Div(one, hn::Add(a, hn::Set(d, 2.5f)));
  const V s = hn::NegMulAdd(hn::Set(d, 5.0f), t, one);
  V h = hn::MulAdd(hn::Set(d, -0.000157701758f), s, hn::Set(d, -0.000311622483f));
  h = hn::MulAdd(h, s, hn::Set(d, 0.000684412084f));
  h = hn::MulAdd(h, s, hn::Set(d, 0.00252393247f));
  h = hn::MulAdd(h, s, hn::Set(d, -0.00160082994f));
  h = hn::MulAdd(h, s, hn::Set(d, -0.0163861855f));
  h = hn::MulAdd(h, s, hn::Set(d, 0.00923587581f));
  h = hn::MulAdd(h, s, hn::Set(d, 0.131986979f));
  h = hn::MulAdd(h, s, hn::Set(d, -0.433692012f));
  h = hn::MulAdd(h, s, hn::Set(d, 0.70665666f));
  const V square = hn::Mul(x, x), g = exp_of(d, hn::Mul(hn::Set(d, -0.5f), square));
  const V tail = hn::Mul(g, hn::Mul(h, t)), outer = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(one, tail));
  V m = hn::MulAdd(hn::Set(d, 9.42352653e-5f), square, hn::Set(d, -0.00116935373f));
  m = hn::MulAdd(m, square, hn::Set(d, 0.00996719687f));
  m = hn::MulAdd(m, square, hn::Set(d, -0.0664895827f));
  m = hn::MulAdd(m, square, hn::Set(d, 0.398942264f));
  return {hn::IfThenElse(hn::Lt(a, one), hn::MulAdd(m, x, hn::Set(d, 0.5f)), outer), g};
}

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

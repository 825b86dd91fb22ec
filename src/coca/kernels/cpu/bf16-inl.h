// coca/kernels/cpu/bf16-inl.h - loads and stores of float or bf16 elements as float vectors, for any float tag, and
// pairs of bf16 for dot products.
// Bits are as coca::BF16's on every target: to nearest even, NaN stays NaN (quiet), denormals kept. Hence integer
// arithmetic: Highway's DemoteTo for bf16 truncates, and the CPU's own instruction flushes denormals.
// Per-target header: included inside foreach_target.
// SPDX-License-Identifier: Apache-2.0
#if defined(COCA_KERNELS_CPU_BF16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef COCA_KERNELS_CPU_BF16_INL_H_
#undef COCA_KERNELS_CPU_BF16_INL_H_
#else
#define COCA_KERNELS_CPU_BF16_INL_H_
#endif

#include <cstdint>
#include <type_traits>

#include "hwy/highway.h"
#include "coca/base/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Lanes(d) elements from p, which needs no alignment.
template <class D>
HWY_INLINE hn::Vec<D> load_f32(D d, const float* p) {
  return hn::LoadU(d, p);
}
template <class D>
HWY_INLINE hn::Vec<D> load_f32(D d, const BF16* p) {
  const hn::Rebind<uint16_t, D> du16;
  const hn::RebindToUnsigned<D> du;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(du16, &p->bits))));
}

// Writes Lanes(d) elements at p, each rounded once.
template <class V, class D>
HWY_INLINE void store_f32(V v, D d, float* p) {
  hn::StoreU(v, d, p);
}
template <class V, class D>
HWY_INLINE void store_f32(V v, D /* d */, BF16* p) {
  const hn::Rebind<uint16_t, D> du16;
  const hn::RebindToUnsigned<D> du;
  const hn::RebindToSigned<D> di;
  const auto u = hn::BitCast(du, v), high = hn::ShiftRight<16>(u);
  const auto odd = hn::And(high, hn::Set(du, 1));
  const auto near = hn::ShiftRight<16>(hn::Add(u, hn::Add(odd, hn::Set(du, 0x7fff))));
  const auto quiet = hn::Or(high, hn::Set(du, 0x40));
  const auto bits = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(v)), quiet, near);
  hn::StoreU(hn::DemoteTo(du16, hn::BitCast(di, bits)), du16, &p->bits);
}

// Two bf16: the number of the first inner index in the lower half.
using Bf16Pair = uint32_t;

template <class E>
constexpr bool kPairs = !std::is_same_v<E, float>;

HWY_INLINE Bf16Pair make_pair(BF16 low, BF16 high) {
  return static_cast<Bf16Pair>(low.bits) | static_cast<Bf16Pair>(high.bits) << 16;
}

// Both vectors rounded to nearest even into the halves of each lane. Arguments are probabilities or their
// gradients: finite, or NaN and infinity as the CPU makes them, whose bits this keeps as such.
template <class V>
HWY_INLINE auto round_to_pairs(V low, V high) {
  const hn::RebindToUnsigned<hn::DFromV<V>> du;
  const auto rounded = [&](V v) HWY_ATTR {
    const auto u = hn::BitCast(du, v);
    return hn::Add(u, hn::Add(hn::And(hn::ShiftRight<16>(u), hn::Set(du, 1)), hn::Set(du, 0x7fff)));
  };
  return hn::Or(hn::ShiftRight<16>(rounded(low)), hn::And(rounded(high), hn::Set(du, 0xffff0000u)));
}

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

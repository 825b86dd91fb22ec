// Walks the pairs of a head in vectors and finishes with shorter ones; the formula is a template over the Highway tag
// and the element type (arithmetic in float, one rounding per stored number). Math: docs/math/rope.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/rope.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/rope.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "coca/kernels/cpu/bf16-inl.h"
#include "coca/kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <typename T>
void rope(const RopeTables& tables, Turn turn, Heads<const T> x, Heads<T> y, int64_t row0, int64_t row1) {
  const int64_t half = tables.cos.size(2), D = x.size(3), N = x.size(1), H = x.size(2);
  const bool shared = tables.cos.size(0) == 1;
  for (int64_t row = row0; row < row1; ++row) {
    const int64_t b = row / N, n = row % N;
    const float *cos = tables.cos.ptr(shared ? 0 : b, n), *sin = tables.sin.ptr(shared ? 0 : b, n);
    for (int64_t h = 0; h < H; ++h) {
      const T* in = x.ptr(b, n, h);
      T* out = y.ptr(b, n, h);
      for_lanes(half, [&](auto d, int64_t i) HWY_ATTR {
        const auto c = load_f32(d, cos + i);
        const auto s0 = load_f32(d, sin + i);
        const auto s = turn == Turn::kForward ? s0 : hn::Neg(s0);
        const auto a = load_f32(d, in + i), z = load_f32(d, in + half + i);
        store_f32(hn::NegMulAdd(z, s, hn::Mul(a, c)), d, out + i);
        store_f32(hn::MulAdd(a, s, hn::Mul(z, c)), d, out + half + i);
      });
      if (in != out)
        for (int64_t i = 2 * half; i < D; ++i) out[i] = in[i];
    }
  }
}

// One name per element type, for the dispatch tables.
constexpr auto& rope_f32 = rope<float>;
constexpr auto& rope_bf16 = rope<BF16>;

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(rope_f32);
HWY_EXPORT(rope_bf16);

void rope_rows(const RopeTables& tables, Turn turn, Heads<const float> x, Heads<float> y, int64_t row0,
               int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(rope_f32)(tables, turn, x, y, row0, row1);
}
void rope_rows(const RopeTables& tables, Turn turn, Heads<const BF16> x, Heads<BF16> y, int64_t row0,
               int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(rope_bf16)(tables, turn, x, y, row0, row1);
}

}  // namespace coca::cpu
#endif  // HWY_ONCE

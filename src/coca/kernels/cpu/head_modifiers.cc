// Math: docs/math/head_modifiers.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/head_modifiers.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/head_modifiers.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "coca/kernels/cpu/bf16-inl.h"
#include "coca/kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

template <class Body>
HWY_INLINE void each_head(const HeadCounts& c, const Body& body) {
  for (int64_t n = 0; n < c.N; ++n)
    for (int64_t h = 0; h < c.H; ++h) body(n, h);
}

template <typename T>
void dots(const HeadCounts& c, TokenHeads<const T> a, TokenHeads<const T> b, float* out) {
  each_head(c, [&](int64_t n, int64_t h) HWY_ATTR {
    const T *p = a.at(n, h), *q = b.at(n, h);
    out[n * c.H + h] =
        sum_of(c.X, [&](auto d, int64_t i) HWY_ATTR { return hn::Mul(load_f32(d, p + i), load_f32(d, q + i)); });
  });
}

template <typename T>
void multiply(const HeadCounts& c, TokenHeads<const T> x, const float* factors, TokenHeads<T> y) {
  each_head(c, [&](int64_t n, int64_t h) HWY_ATTR {
    const T* in = x.at(n, h);
    T* out = y.at(n, h);
    const float factor = factors[n * c.H + h];
    for_lanes(c.X, [&](auto d, int64_t i)
                       HWY_ATTR { store_f32(hn::Mul(load_f32(d, in + i), hn::Set(d, factor)), d, out + i); });
  });
}

template <typename T>
void gate(const HeadCounts& c, TokenHeads<const T> x, TokenHeads<const T> g, TokenHeads<T> y) {
  each_head(c, [&](int64_t n, int64_t h) HWY_ATTR {
    const T *in = x.at(n, h), *by = g.at(n, h);
    T* out = y.at(n, h);
    for_lanes(c.X, [&](auto d, int64_t i) HWY_ATTR {
      store_f32(hn::Mul(load_f32(d, in + i), sigmoid(d, load_f32(d, by + i))), d, out + i);
    });
  });
}

template <typename T>
void gate_grad(const GateBackward<T>& a) {
  each_head(a.counts, [&](int64_t n, int64_t h) HWY_ATTR {
    const T *x = a.x.at(n, h), *g = a.g.at(n, h), *dy = a.dy.at(n, h);
    T *dx = a.dx.at(n, h), *dg = a.dg.at(n, h);
    for_lanes(a.counts.X, [&](auto d, int64_t i) HWY_ATTR {
      const auto by = sigmoid_and_slope(d, load_f32(d, g + i));
      const auto dyi = load_f32(d, dy + i);
      store_f32(hn::Mul(hn::Mul(dyi, load_f32(d, x + i)), by.slope), d, dg + i);
      store_f32(hn::Mul(dyi, by.s), d, dx + i);
    });
  });
}

template <typename T>
void mix(const MixTokens<T>& a) {
  each_head(a.counts, [&](int64_t n, int64_t h) HWY_ATTR {
    const bool two = a.other.data && !(a.starts && a.starts[n] >= a.position + n);
    const T *x = a.x.at(n, h), *other = two ? a.other.at(n, h) : nullptr;
    T* y = a.y.at(n, h);
    const float first = a.w[2 * h], second = a.w[2 * h + 1];
    if (!two)
      return for_lanes(a.counts.X, [&](auto d, int64_t i) HWY_ATTR {
        store_f32(hn::Mul(hn::Set(d, first), load_f32(d, x + i)), d, y + i);
      });
    for_lanes(a.counts.X, [&](auto d, int64_t i) HWY_ATTR {
      const auto far = hn::Mul(hn::Set(d, second), load_f32(d, other + i));
      store_f32(hn::MulAdd(hn::Set(d, first), load_f32(d, x + i), far), d, y + i);
    });
  });
}

template <typename T>
void turn_grad(const HeadCounts& c, TokenHeads<const T> y, TokenHeads<const T> dy, int64_t P, float* sums) {
  each_head(c, [&](int64_t n, int64_t h) HWY_ATTR {
    const T *v = y.at(n, h), *g = dy.at(n, h);
    float* out = sums + h * P;
    for_lanes(P, [&](auto d, int64_t j) HWY_ATTR {
      const auto sum = hn::MulAdd(load_f32(d, v + j), load_f32(d, g + j + P), hn::LoadU(d, out + j));
      hn::StoreU(hn::NegMulAdd(load_f32(d, v + j + P), load_f32(d, g + j), sum), d, out + j);
    });
  });
}

void sigmoid_numbers(const float* x, int64_t n, float* open, float* slope) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto by = sigmoid_and_slope(d, hn::LoadU(d, x + i));
    hn::StoreU(by.s, d, open + i);
    if (slope) hn::StoreU(by.slope, d, slope + i);
  });
}

// max(x, 0) + log(1 + e), e = exp(-|x|). With s = e / (2 + e) <= 1/3, the logarithm is 2 artanh(s) =
// 2 s (1 + s^2 / 3 + s^4 / 5 + ...); what the series omits is below 2^-27 of it.
void softplus_numbers(float* x, int64_t n) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto xi = hn::LoadU(d, x + i), e = exp_of(d, hn::Neg(hn::Abs(xi)));
    const auto s = hn::Div(e, hn::Add(hn::Set(d, 2.0f), e)), square = hn::Mul(s, s), twice = hn::Add(s, s);
    auto p = hn::Set(d, 1.0f / 15);
    for (const float odd : {13.0f, 11.0f, 9.0f, 7.0f, 5.0f, 3.0f}) p = hn::MulAdd(p, square, hn::Set(d, 1.0f / odd));
    const auto more = hn::MulAdd(hn::Mul(twice, square), p, twice);
    // Not hn::Max, which may drop NaN.
    const auto least = hn::IfThenElse(hn::Lt(xi, hn::Zero(d)), hn::Zero(d), xi);
    hn::StoreU(hn::Add(least, more), d, x + i);
  });
}

// One name per element type, for the dispatch tables.
constexpr auto& dots_f32 = dots<float>;
constexpr auto& dots_bf16 = dots<BF16>;
constexpr auto& multiply_f32 = multiply<float>;
constexpr auto& multiply_bf16 = multiply<BF16>;
constexpr auto& gate_f32 = gate<float>;
constexpr auto& gate_bf16 = gate<BF16>;
constexpr auto& gate_grad_f32 = gate_grad<float>;
constexpr auto& gate_grad_bf16 = gate_grad<BF16>;
constexpr auto& mix_f32 = mix<float>;
constexpr auto& mix_bf16 = mix<BF16>;
constexpr auto& turn_grad_f32 = turn_grad<float>;
constexpr auto& turn_grad_bf16 = turn_grad<BF16>;

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(dots_f32);
HWY_EXPORT(dots_bf16);
HWY_EXPORT(multiply_f32);
HWY_EXPORT(multiply_bf16);
HWY_EXPORT(gate_f32);
HWY_EXPORT(gate_bf16);
HWY_EXPORT(gate_grad_f32);
HWY_EXPORT(gate_grad_bf16);
HWY_EXPORT(mix_f32);
HWY_EXPORT(mix_bf16);
HWY_EXPORT(turn_grad_f32);
HWY_EXPORT(turn_grad_bf16);
HWY_EXPORT(sigmoid_numbers);
HWY_EXPORT(softplus_numbers);

void dot_heads(const HeadCounts& c, TokenHeads<const float> a, TokenHeads<const float> b, float* out) noexcept {
  HWY_DYNAMIC_DISPATCH(dots_f32)(c, a, b, out);
}
void dot_heads(const HeadCounts& c, TokenHeads<const BF16> a, TokenHeads<const BF16> b, float* out) noexcept {
  HWY_DYNAMIC_DISPATCH(dots_bf16)(c, a, b, out);
}
void multiply_heads(const HeadCounts& c, TokenHeads<const float> x, const float* factors,
                    TokenHeads<float> y) noexcept {
  HWY_DYNAMIC_DISPATCH(multiply_f32)(c, x, factors, y);
}
void multiply_heads(const HeadCounts& c, TokenHeads<const BF16> x, const float* factors, TokenHeads<BF16> y) noexcept {
  HWY_DYNAMIC_DISPATCH(multiply_bf16)(c, x, factors, y);
}
void gate_heads(const HeadCounts& c, TokenHeads<const float> x, TokenHeads<const float> g,
                TokenHeads<float> y) noexcept {
  HWY_DYNAMIC_DISPATCH(gate_f32)(c, x, g, y);
}
void gate_heads(const HeadCounts& c, TokenHeads<const BF16> x, TokenHeads<const BF16> g, TokenHeads<BF16> y) noexcept {
  HWY_DYNAMIC_DISPATCH(gate_bf16)(c, x, g, y);
}
void gate_heads_backward(const GateBackward<float>& a) noexcept { HWY_DYNAMIC_DISPATCH(gate_grad_f32)(a); }
void gate_heads_backward(const GateBackward<BF16>& a) noexcept { HWY_DYNAMIC_DISPATCH(gate_grad_bf16)(a); }
void mix_tokens(const MixTokens<float>& a) noexcept { HWY_DYNAMIC_DISPATCH(mix_f32)(a); }
void mix_tokens(const MixTokens<BF16>& a) noexcept { HWY_DYNAMIC_DISPATCH(mix_bf16)(a); }
void add_turn_gradient(const HeadCounts& c, TokenHeads<const float> y, TokenHeads<const float> dy, int64_t P,
                       float* sums) noexcept {
  HWY_DYNAMIC_DISPATCH(turn_grad_f32)(c, y, dy, P, sums);
}
void add_turn_gradient(const HeadCounts& c, TokenHeads<const BF16> y, TokenHeads<const BF16> dy, int64_t P,
                       float* sums) noexcept {
  HWY_DYNAMIC_DISPATCH(turn_grad_bf16)(c, y, dy, P, sums);
}
void sigmoids(const float* x, int64_t n, float* open, float* slope) noexcept {
  HWY_DYNAMIC_DISPATCH(sigmoid_numbers)(x, n, open, slope);
}
void softplus(float* x, int64_t n) noexcept { HWY_DYNAMIC_DISPATCH(softplus_numbers)(x, n); }

}  // namespace coca::cpu
#endif  // HWY_ONCE

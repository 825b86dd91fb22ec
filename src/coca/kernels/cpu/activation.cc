// GELU uses Phi and the density from one exp; its tanh form is x sigmoid(2u). Elements are
// float or bf16, the arithmetic is float. Math: docs/math/activation.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/activation.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/activation.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "coca/kernels/cpu/bf16-inl.h"
#include "coca/kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

constexpr float kInvSqrt2Pi = 0.39894228f;
constexpr float kTwoSqrt2OverPi = 1.5957691f;  // 2u = this * (x + kCubic x^3)
constexpr float kCubic = 0.044715f;

// y = x Phi(x)
template <typename T>
void gelu_exact(const T* x, T* y, int64_t n) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto xi = load_f32(d, x + i);
    store_f32(hn::Mul(xi, normal(d, xi).phi), d, y + i);
  });
}

// dx = dy (Phi(x) + x density(x))
template <typename T>
void gelu_exact_grad(const T* x, const T* dy, T* dx, int64_t n) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto xi = load_f32(d, x + i);
    const auto p = normal(d, xi);
    const auto slope = hn::MulAdd(hn::Mul(xi, hn::Set(d, kInvSqrt2Pi)), p.g, p.phi);
    store_f32(hn::Mul(load_f32(d, dy + i), slope), d, dx + i);
  });
}

template <class D, class V>
HWY_INLINE V two_u(D d, V x, V square) {
  return hn::Mul(hn::Set(d, kTwoSqrt2OverPi), hn::MulAdd(hn::Mul(hn::Set(d, kCubic), square), x, x));
}

// y = x s, s = sigmoid(2u)
template <typename T>
void gelu_tanh(const T* x, T* y, int64_t n) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto xi = load_f32(d, x + i);
    store_f32(hn::Mul(xi, sigmoid(d, two_u(d, xi, hn::Mul(xi, xi)))), d, y + i);
  });
}

// dx = dy (s + x s (1 - s) 2u')
template <typename T>
void gelu_tanh_grad(const T* x, const T* dy, T* dx, int64_t n) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto xi = load_f32(d, x + i), square = hn::Mul(xi, xi);
    const auto gate = sigmoid_and_slope(d, two_u(d, xi, square));
    const auto du = hn::MulAdd(hn::Set(d, 3 * kCubic * kTwoSqrt2OverPi), square, hn::Set(d, kTwoSqrt2OverPi));
    const auto slope = hn::MulAdd(hn::Mul(xi, gate.slope), du, gate.s);
    store_f32(hn::Mul(load_f32(d, dy + i), slope), d, dx + i);
  });
}

// y = gate sigmoid(gate) up
template <typename T>
void swiglu(const T* gate, const T* up, T* y, int64_t n) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto g = load_f32(d, gate + i);
    store_f32(hn::Mul(hn::Mul(g, sigmoid(d, g)), load_f32(d, up + i)), d, y + i);
  });
}

// dgate = dy up (s + gate s (1 - s)), dup = dy gate s
template <typename T>
void swiglu_grad(const T* gate, const T* up, const T* dy, T* dgate, T* dup, int64_t n) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto g = load_f32(d, gate + i), u = load_f32(d, up + i), dyi = load_f32(d, dy + i);
    const auto p = sigmoid_and_slope(d, g);
    store_f32(hn::Mul(hn::Mul(dyi, u), hn::MulAdd(g, p.slope, p.s)), d, dgate + i);
    store_f32(hn::Mul(dyi, hn::Mul(g, p.s)), d, dup + i);
  });
}

// One name per element type, for the dispatch tables.
constexpr auto& gelu_exact_f32 = gelu_exact<float>;
constexpr auto& gelu_exact_grad_f32 = gelu_exact_grad<float>;
constexpr auto& gelu_tanh_f32 = gelu_tanh<float>;
constexpr auto& gelu_tanh_grad_f32 = gelu_tanh_grad<float>;
constexpr auto& swiglu_f32 = swiglu<float>;
constexpr auto& swiglu_grad_f32 = swiglu_grad<float>;
constexpr auto& gelu_exact_bf16 = gelu_exact<BF16>;
constexpr auto& gelu_exact_grad_bf16 = gelu_exact_grad<BF16>;
constexpr auto& gelu_tanh_bf16 = gelu_tanh<BF16>;
constexpr auto& gelu_tanh_grad_bf16 = gelu_tanh_grad<BF16>;
constexpr auto& swiglu_bf16 = swiglu<BF16>;
constexpr auto& swiglu_grad_bf16 = swiglu_grad<BF16>;

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(gelu_exact_f32);
HWY_EXPORT(gelu_exact_bf16);
HWY_EXPORT(gelu_exact_grad_f32);
HWY_EXPORT(gelu_exact_grad_bf16);
HWY_EXPORT(gelu_tanh_f32);
HWY_EXPORT(gelu_tanh_bf16);
HWY_EXPORT(gelu_tanh_grad_f32);
HWY_EXPORT(gelu_tanh_grad_bf16);
HWY_EXPORT(swiglu_f32);
HWY_EXPORT(swiglu_bf16);
HWY_EXPORT(swiglu_grad_f32);
HWY_EXPORT(swiglu_grad_bf16);

void gelu_exact_forward(const float* x, float* y, int64_t n) noexcept { HWY_DYNAMIC_DISPATCH(gelu_exact_f32)(x, y, n); }
void gelu_exact_forward(const BF16* x, BF16* y, int64_t n) noexcept { HWY_DYNAMIC_DISPATCH(gelu_exact_bf16)(x, y, n); }
void gelu_exact_backward(const float* x, const float* dy, float* dx, int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(gelu_exact_grad_f32)(x, dy, dx, n);
}
void gelu_exact_backward(const BF16* x, const BF16* dy, BF16* dx, int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(gelu_exact_grad_bf16)(x, dy, dx, n);
}
void gelu_tanh_forward(const float* x, float* y, int64_t n) noexcept { HWY_DYNAMIC_DISPATCH(gelu_tanh_f32)(x, y, n); }
void gelu_tanh_forward(const BF16* x, BF16* y, int64_t n) noexcept { HWY_DYNAMIC_DISPATCH(gelu_tanh_bf16)(x, y, n); }
void gelu_tanh_backward(const float* x, const float* dy, float* dx, int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(gelu_tanh_grad_f32)(x, dy, dx, n);
}
void gelu_tanh_backward(const BF16* x, const BF16* dy, BF16* dx, int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(gelu_tanh_grad_bf16)(x, dy, dx, n);
}
void swiglu_forward(const float* gate, const float* up, float* y, int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(swiglu_f32)(gate, up, y, n);
}
void swiglu_forward(const BF16* gate, const BF16* up, BF16* y, int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(swiglu_bf16)(gate, up, y, n);
}
void swiglu_backward(const float* gate, const float* up, const float* dy, float* dgate, float* dup,
                     int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(swiglu_grad_f32)(gate, up, dy, dgate, dup, n);
}
void swiglu_backward(const BF16* gate, const BF16* up, const BF16* dy, BF16* dgate, BF16* dup, int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(swiglu_grad_bf16)(gate, up, dy, dgate, dup, n);
}

}  // namespace coca::cpu
#endif  // HWY_ONCE

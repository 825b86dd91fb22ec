// GELU uses Phi and the density from one exp; its tanh form is x sigmoid(2u). Math: docs/math/activation.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/activation.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/activation.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "coca/kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

constexpr float kInvSqrt2Pi = 0.39894228f;
constexpr float kTwoSqrt2OverPi = 1.5957691f;  // 2u = this * (x + kCubic x^3)
constexpr float kCubic = 0.044715f;

// y = x Phi(x)
void gelu_exact(const float* x, float* y, int64_t n) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto xi = hn::LoadU(d, x + i);
    hn::StoreU(hn::Mul(xi, normal(d, xi).phi), d, y + i);
  });
}

// dx = dy (Phi(x) + x density(x))
void gelu_exact_grad(const float* x, const float* dy, float* dx, int64_t n) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto xi = hn::LoadU(d, x + i);
    const auto p = normal(d, xi);
    const auto slope = hn::MulAdd(hn::Mul(xi, hn::Set(d, kInvSqrt2Pi)), p.g, p.phi);
    hn::StoreU(hn::Mul(hn::LoadU(d, dy + i), slope), d, dx + i);
  });
}

template <class D, class V>
HWY_INLINE V two_u(D d, V x, V square) {
  return hn::Mul(hn::Set(d, kTwoSqrt2OverPi), hn::MulAdd(hn::Mul(hn::Set(d, kCubic), square), x, x));
}

// y = x s, s = sigmoid(2u)
void gelu_tanh(const float* x, float* y, int64_t n) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto xi = hn::LoadU(d, x + i);
    hn::StoreU(hn::Mul(xi, sigmoid(d, two_u(d, xi, hn::Mul(xi, xi)))), d, y + i);
  });
}

// dx = dy (s + x s (1 - s) 2u')
void gelu_tanh_grad(const float* x, const float* dy, float* dx, int64_t n) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto xi = hn::LoadU(d, x + i), square = hn::Mul(xi, xi);
    const auto gate = sigmoid_and_slope(d, two_u(d, xi, square));
    const auto du = hn::MulAdd(hn::Set(d, 3 * kCubic * kTwoSqrt2OverPi), square, hn::Set(d, kTwoSqrt2OverPi));
    const auto slope = hn::MulAdd(hn::Mul(xi, gate.slope), du, gate.s);
    hn::StoreU(hn::Mul(hn::LoadU(d, dy + i), slope), d, dx + i);
  });
}

// y = gate sigmoid(gate) up
void swiglu(const float* gate, const float* up, float* y, int64_t n) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto g = hn::LoadU(d, gate + i);
    hn::StoreU(hn::Mul(hn::Mul(g, sigmoid(d, g)), hn::LoadU(d, up + i)), d, y + i);
  });
}

// dgate = dy up (s + gate s (1 - s)), dup = dy gate s
void swiglu_grad(const float* gate, const float* up, const float* dy, float* dgate, float* dup, int64_t n) {
  for_lanes(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto g = hn::LoadU(d, gate + i), u = hn::LoadU(d, up + i), dyi = hn::LoadU(d, dy + i);
    const auto p = sigmoid_and_slope(d, g);
    hn::StoreU(hn::Mul(hn::Mul(dyi, u), hn::MulAdd(g, p.slope, p.s)), d, dgate + i);
    hn::StoreU(hn::Mul(dyi, hn::Mul(g, p.s)), d, dup + i);
  });
}

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(gelu_exact);
HWY_EXPORT(gelu_exact_grad);
HWY_EXPORT(gelu_tanh);
HWY_EXPORT(gelu_tanh_grad);
HWY_EXPORT(swiglu);
HWY_EXPORT(swiglu_grad);

void gelu_exact_forward(const float* x, float* y, int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(gelu_exact)(x, y, n);
}
void gelu_exact_backward(const float* x, const float* dy, float* dx, int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(gelu_exact_grad)(x, dy, dx, n);
}
void gelu_tanh_forward(const float* x, float* y, int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(gelu_tanh)(x, y, n);
}
void gelu_tanh_backward(const float* x, const float* dy, float* dx, int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(gelu_tanh_grad)(x, dy, dx, n);
}
void swiglu_forward(const float* gate, const float* up, float* y, int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(swiglu)(gate, up, y, n);
}
void swiglu_backward(const float* gate, const float* up, const float* dy, float* dgate, float* dup,
                     int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(swiglu_grad)(gate, up, dy, dgate, dup, n);
}

}  // namespace coca::cpu
#endif  // HWY_ONCE

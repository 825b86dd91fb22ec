// coca/kernels/ref/activation.h - GELU and SwiGLU, plainly. Math: docs/math/activation.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <complex>
#include <cstdint>
#include <numbers>

namespace coca::ref {

inline float erf(float x) { return std::erf(x); }
inline double erf(double x) { return std::erf(x); }
// First order in the imaginary part, which is all that a complex step of 1e-50 resolves.
inline std::complex<double> erf(const std::complex<double>& z) {
  const double x = z.real();
  return {std::erf(x), z.imag() * 2.0 * std::numbers::inv_sqrtpi * std::exp(-x * x)};
}

// y = x Phi(x), Phi(x) = (1 + erf(x / sqrt 2)) / 2
template <typename T>
void gelu_exact_forward(int64_t n, const T* x, T* y) {
  const T root_half = static_cast<T>(std::numbers::sqrt2 / 2);
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(0.5) * x[i] * (T(1) + erf(x[i] * root_half));
}

// dx = dy (Phi(x) + x exp(-x^2 / 2) / sqrt(2 pi))
template <typename T>
void gelu_exact_backward(int64_t n, const T* x, const T* dy, T* dx) {
  using std::exp;
  const T half = static_cast<T>(0.5), root_half = static_cast<T>(std::numbers::sqrt2 / 2);
  const T inv_sqrt_2pi = static_cast<T>(std::numbers::inv_sqrtpi / std::numbers::sqrt2);
  for (int64_t i = 0; i < n; ++i) {
    const T phi = half * (T(1) + erf(x[i] * root_half)), density = inv_sqrt_2pi * exp(-half * x[i] * x[i]);
    dx[i] = dy[i] * (phi + x[i] * density);
  }
}

// y = x (1 + tanh u) / 2, u = sqrt(2 / pi) (x + 0.044715 x^3)
template <typename T>
void gelu_tanh_forward(int64_t n, const T* x, T* y) {
  using std::tanh;
  const T a = static_cast<T>(std::numbers::sqrt2 * std::numbers::inv_sqrtpi), cubic = static_cast<T>(0.044715);
  for (int64_t i = 0; i < n; ++i) {
    const T t = tanh(a * (x[i] + cubic * x[i] * x[i] * x[i]));
    y[i] = static_cast<T>(0.5) * x[i] * (T(1) + t);
  }
}

// dx = dy ((1 + t) / 2 + x (1 - t^2) u' / 2), t = tanh u, u' = sqrt(2 / pi) (1 + 3 * 0.044715 x^2)
template <typename T>
void gelu_tanh_backward(int64_t n, const T* x, const T* dy, T* dx) {
  using std::tanh;
  const T a = static_cast<T>(std::numbers::sqrt2 * std::numbers::inv_sqrtpi), cubic = static_cast<T>(0.044715);
  const T half = static_cast<T>(0.5);
  for (int64_t i = 0; i < n; ++i) {
    const T t = tanh(a * (x[i] + cubic * x[i] * x[i] * x[i]));
    const T du = a * (T(1) + T(3) * cubic * x[i] * x[i]);
    dx[i] = dy[i] * (half * (T(1) + t) + half * x[i] * (T(1) - t * t) * du);
  }
}

// y = silu(gate) up, silu(x) = x / (1 + exp(-x))
template <typename T>
void swiglu_forward(int64_t n, const T* gate, const T* up, T* y) {
  using std::exp;
  for (int64_t i = 0; i < n; ++i) y[i] = gate[i] / (T(1) + exp(-gate[i])) * up[i];
}

// dgate = dy up s (1 + gate (1 - s)), dup = dy gate s, s = 1 / (1 + exp(-gate))
template <typename T>
void swiglu_backward(int64_t n, const T* gate, const T* up, const T* dy, T* dgate, T* dup) {
  using std::exp;
  for (int64_t i = 0; i < n; ++i) {
    const T g = gate[i], u = up[i], dyi = dy[i], s = T(1) / (T(1) + exp(-g));
    dgate[i] = dyi * u * s * (T(1) + g * (T(1) - s));
    dup[i] = dyi * g * s;
  }
}

}  // namespace coca::ref

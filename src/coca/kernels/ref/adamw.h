// coca/kernels/ref/adamw.h - the AdamW update, plainly. Math: docs/math/adamw.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

namespace coca::ref {

struct AdamWOptions {
  double learning_rate = 1e-3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.0, grad_scale = 1.0;
  int64_t step = 1;
};

template <typename T>
void adamw_step(const AdamWOptions& o, int64_t n, const T* grad, T* param, T* m, T* v) {
  const double correction1 = 1.0 - std::pow(o.beta1, static_cast<double>(o.step));
  const double correction2 = 1.0 - std::pow(o.beta2, static_cast<double>(o.step));
  const T lr = static_cast<T>(o.learning_rate), root = static_cast<T>(std::sqrt(correction2));
  for (int64_t i = 0; i < n; ++i) {
    const T g = grad[i] * static_cast<T>(o.grad_scale);
    m[i] = static_cast<T>(o.beta1) * m[i] + static_cast<T>(1.0 - o.beta1) * g;
    v[i] = static_cast<T>(o.beta2) * v[i] + static_cast<T>(1.0 - o.beta2) * g * g;
    const T mhat = m[i] / static_cast<T>(correction1), denominator = std::sqrt(v[i]) / root + static_cast<T>(o.eps);
    param[i] -= lr * static_cast<T>(o.weight_decay) * param[i];
    param[i] -= lr * mhat / denominator;
  }
}

template <typename T>
double sum_of_squares(int64_t n, const T* x) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

}  // namespace coca::ref

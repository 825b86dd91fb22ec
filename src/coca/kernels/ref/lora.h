// coca/kernels/ref/lora.h - dropout whose mask is a function of a key and an element's index, and the low-rank product
// that uses it, plainly. Math: docs/math/lora.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "coca/kernels/args/lora.h"

namespace coca::ref {

template <typename T>
struct LoraArgs {
  int64_t M = 0, K = 0, N = 0, R = 0;
  const T* x = nullptr;  // [M, K]
  const T* a = nullptr;  // [R, K]
  const T* b = nullptr;  // [N, R]
  double scale = 1.0, rate = 0.0;
  uint64_t key = 0;
};

// The factor of element i of x under the mask: 0, or 1 / (1 - rate).
template <typename T>
T dropout_factor(const LoraArgs<T>& p, int64_t i) {
  if (p.rate == 0.0) return T(1);
  return ops::dropout_keeps(p.key, i, ops::dropout_threshold(p.rate)) ? T(1.0 / (1.0 - p.rate)) : T(0);
}

// h [M, R] = scale * dropout(x) a^T
template <typename T>
std::vector<T> lora_inner(const LoraArgs<T>& p) {
  std::vector<T> h(static_cast<size_t>(p.M * p.R));
  for (int64_t m = 0; m < p.M; ++m)
    for (int64_t r = 0; r < p.R; ++r) {
      T sum = T(0);
      for (int64_t k = 0; k < p.K; ++k) sum += dropout_factor(p, m * p.K + k) * p.x[m * p.K + k] * p.a[r * p.K + k];
      h[static_cast<size_t>(m * p.R + r)] = T(p.scale) * sum;
    }
  return h;
}

// y [M, N] += h b^T
template <typename T>
void lora_forward(const LoraArgs<T>& p, T* y) {
  const std::vector<T> h = lora_inner(p);
  for (int64_t m = 0; m < p.M; ++m)
    for (int64_t n = 0; n < p.N; ++n)
      for (int64_t r = 0; r < p.R; ++r) y[m * p.N + n] += h[static_cast<size_t>(m * p.R + r)] * p.b[n * p.R + r];
}

// With dh = scale * dy b: dx += dropout'(dh a), da += dh^T dropout(x), db += dy^T h.
template <typename T>
void lora_backward(const LoraArgs<T>& p, const T* dy, T* dx, T* da, T* db) {
  const std::vector<T> h = lora_inner(p);
  for (int64_t m = 0; m < p.M; ++m)
    for (int64_t r = 0; r < p.R; ++r) {
      T dh = T(0);
      for (int64_t n = 0; n < p.N; ++n) {
        dh += T(p.scale) * dy[m * p.N + n] * p.b[n * p.R + r];
        db[n * p.R + r] += dy[m * p.N + n] * h[static_cast<size_t>(m * p.R + r)];
      }
      for (int64_t k = 0; k < p.K; ++k) {
        const T factor = dropout_factor(p, m * p.K + k);
        dx[m * p.K + k] += factor * dh * p.a[r * p.K + k];
        da[r * p.K + k] += factor * dh * p.x[m * p.K + k];
      }
    }
}

}  // namespace coca::ref

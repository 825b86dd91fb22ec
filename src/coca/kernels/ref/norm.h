// coca/kernels/ref/norm.h - LayerNorm and RMSNorm, plainly. Math: docs/math/norm.md. All arrays contiguous.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <complex>
#include <cstdint>

namespace coca::ref {

enum class Norm : uint8_t { kLayer, kRms };

template <typename T>
struct NormArgs {
  Norm kind = Norm::kLayer;
  double eps = 1e-5;
  int64_t M = 0, C = 0;
  const T* x = nullptr;  // [M, C]
  const T* w = nullptr;  // [C]
  const T* b = nullptr;  // [C] or null
};

// y = (x - mean) r w + b, r = 1 / sqrt(mean((x - mean)^2) + eps); mean = 0 for RMSNorm. stat [M, 2] may be
// null.
template <typename T>
void norm_forward(const NormArgs<T>& a, T* y, T* stat) {
  using std::sqrt;
  const T count = static_cast<T>(static_cast<double>(a.C));
  for (int64_t m = 0; m < a.M; ++m) {
    const T* x = a.x + m * a.C;
    T mean = T(0), variance = T(0);
    if (a.kind == Norm::kLayer) {
      for (int64_t c = 0; c < a.C; ++c) mean += x[c];
      mean /= count;
    }
    for (int64_t c = 0; c < a.C; ++c) variance += (x[c] - mean) * (x[c] - mean);
    const T r = T(1) / sqrt(variance / count + static_cast<T>(a.eps));
    for (int64_t c = 0; c < a.C; ++c) y[m * a.C + c] = (x[c] - mean) * r * a.w[c] + (a.b ? a.b[c] : T(0));
    if (stat) {
      stat[2 * m] = mean;
      stat[2 * m + 1] = r;
    }
  }
}

// With xhat = (x - mean) r and g = dy w: dx += r (g - mean(g) - xhat mean(g xhat)) (RMSNorm: without
// mean(g)), dw += sum dy xhat, db += sum dy; dw and db may be null.
template <typename T>
void norm_backward(const NormArgs<T>& a, const T* stat, const T* dy, T* dx, T* dw, T* db) {
  const T count = static_cast<T>(static_cast<double>(a.C));
  for (int64_t m = 0; m < a.M; ++m) {
    const T *x = a.x + m * a.C, *dyr = dy + m * a.C;
    const T mean = stat[2 * m], r = stat[2 * m + 1];
    T mean_g = T(0), mean_gx = T(0);
    for (int64_t c = 0; c < a.C; ++c) {
      const T xhat = (x[c] - mean) * r, g = dyr[c] * a.w[c];
      mean_g += g;
      mean_gx += g * xhat;
      if (dw) dw[c] += dyr[c] * xhat;
      if (db) db[c] += dyr[c];
    }
    mean_g = a.kind == Norm::kLayer ? mean_g / count : T(0);
    mean_gx /= count;
    for (int64_t c = 0; c < a.C; ++c) {
      const T xhat = (x[c] - mean) * r;
      dx[m * a.C + c] += r * (dyr[c] * a.w[c] - mean_g - xhat * mean_gx);
    }
  }
}

}  // namespace coca::ref

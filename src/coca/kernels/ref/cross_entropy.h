// coca/kernels/ref/cross_entropy.h - softmax cross entropy, plainly. Math: docs/math/cross_entropy.md.
// A negative target marks a row without loss. All arrays contiguous.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <complex>
#include <cstdint>

#include "coca/kernels/ref/scalar.h"

namespace coca::ref {

// lse = log sum exp(logits), nll = lse - logits[target]. lse may be null.
template <typename T>
void cross_entropy_forward(int64_t M, int64_t V, const T* logits, const int32_t* targets, T* nll, T* lse) {
  using std::exp, std::log;
  for (int64_t m = 0; m < M; ++m) {
    const T* x = logits + m * V;
    T top = x[0], sum = T(0);
    for (int64_t i = 1; i < V; ++i)
      if (real_part(x[i]) > real_part(top)) top = x[i];
    for (int64_t i = 0; i < V; ++i) sum += exp(x[i] - top);
    const T row_lse = top + log(sum);
    nll[m] = targets[m] < 0 ? T(0) : row_lse - x[targets[m]];
    if (lse) lse[m] = row_lse;
  }
}

// dlogits = scale (exp(logits - lse) - onehot(target)); zero for rows without a target.
template <typename T>
void cross_entropy_backward(int64_t M, int64_t V, const T* logits, const int32_t* targets, const T* lse, T scale,
                            T* dlogits) {
  using std::exp;
  for (int64_t m = 0; m < M; ++m)
    for (int64_t i = 0; i < V; ++i) {
      const T p = exp(logits[m * V + i] - lse[m]);
      dlogits[m * V + i] = targets[m] < 0 ? T(0) : scale * (i == targets[m] ? p - T(1) : p);
    }
}

}  // namespace coca::ref

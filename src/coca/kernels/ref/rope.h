// coca/kernels/ref/rope.h - rotary embedding, plainly. Math: docs/math/rope.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/tensor/view.h"

namespace coca::ref {

// y pair (j, j + R/2) = the rotation of x's pair by the angle of (row, j); dims R..D-1 are copied.
// sign = -1 rotates back, which is the gradient (the rotation is orthogonal).
template <typename T, typename C>
void rope(TensorView<const C, 3> cos, TensorView<const C, 3> sin, TensorView<const T, 4> x, TensorView<T, 4> y,
          double sign = 1.0) {
  const int64_t half = cos.size(2), D = x.size(3);
  for (int64_t b = 0; b < x.size(0); ++b)
    for (int64_t n = 0; n < x.size(1); ++n)
      for (int64_t h = 0; h < x.size(2); ++h) {
        const T* in = x.ptr(b, n, h);
        T* out = y.ptr(b, n, h);
        for (int64_t j = 0; j < half; ++j) {
          const C c = *cos.ptr(cos.size(0) == 1 ? 0 : b, n, j);
          const C s = *sin.ptr(sin.size(0) == 1 ? 0 : b, n, j) * static_cast<C>(sign);
          const T a = in[j], z = in[j + half];
          out[j] = a * c - z * s;
          out[j + half] = z * c + a * s;
        }
        for (int64_t j = 2 * half; j < D; ++j) out[j] = in[j];
      }
}

}  // namespace coca::ref

// coca/kernels/ref/linear.h - y = x W^T + b, plainly. Math: docs/math/linear.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/tensor/view.h"

namespace coca::ref {

// y[m, n] += sum over k of x[m, k] w[n, k], plus b[n] when b is given. The caller clears y to assign.
template <typename T>
void linear_forward(TensorView<const T, 2> x, TensorView<const T, 2> w, TensorView<const T, 1> b, TensorView<T, 2> y) {
  for (int64_t m = 0; m < y.size(0); ++m)
    for (int64_t n = 0; n < y.size(1); ++n) {
      T sum = b.empty() ? T(0) : b(n);
      for (int64_t k = 0; k < x.size(1); ++k) sum += x(m, k) * w(n, k);
      y(m, n) += sum;
    }
}

// dx[m, k] += sum over n of dy[m, n] w[n, k]
template <typename T>
void linear_backward_x(TensorView<const T, 2> w, TensorView<const T, 2> dy, TensorView<T, 2> dx) {
  for (int64_t m = 0; m < dx.size(0); ++m)
    for (int64_t k = 0; k < dx.size(1); ++k) {
      T sum = T(0);
      for (int64_t n = 0; n < dy.size(1); ++n) sum += dy(m, n) * w(n, k);
      dx(m, k) += sum;
    }
}

// dw[n, k] += sum over m of dy[m, n] x[m, k]
template <typename T>
void linear_backward_w(TensorView<const T, 2> x, TensorView<const T, 2> dy, TensorView<T, 2> dw) {
  for (int64_t n = 0; n < dw.size(0); ++n)
    for (int64_t k = 0; k < dw.size(1); ++k) {
      T sum = T(0);
      for (int64_t m = 0; m < dy.size(0); ++m) sum += dy(m, n) * x(m, k);
      dw(n, k) += sum;
    }
}

// db[n] += sum over m of dy[m, n]
template <typename T>
void linear_backward_b(TensorView<const T, 2> dy, TensorView<T, 1> db) {
  for (int64_t n = 0; n < db.size(0); ++n) {
    T sum = T(0);
    for (int64_t m = 0; m < dy.size(0); ++m) sum += dy(m, n);
    db(n) += sum;
  }
}

}  // namespace coca::ref

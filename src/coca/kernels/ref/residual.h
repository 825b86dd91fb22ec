// coca/kernels/ref/residual.h - y = a + b or a + b + c, plainly. All arrays contiguous.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace coca::ref {

template <typename T>
void residual_forward(int64_t n, const T* a, const T* b, const T* c, T* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = c ? a[i] + b[i] + c[i] : a[i] + b[i];
}

}  // namespace coca::ref

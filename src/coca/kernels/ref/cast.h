// coca/kernels/ref/cast.h - element types changed one by one. Naive. Math: docs/math/cast.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace coca::ref {

template <typename From, typename To>
void cast(int64_t n, const From* x, To* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<To>(x[i]);
}

}  // namespace coca::ref

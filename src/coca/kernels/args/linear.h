// coca/kernels/args/linear.h - what linear takes; ops/linear.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/kernels/args/implementation.h"
#include "coca/kernels/args/write.h"

namespace coca::ops {

// Rows of x, y, dx, dy may be strided (stride(0) >= columns); the innermost stride is 1.
struct LinearForward {
  TensorRef x;     // [M, K]
  TensorRef w;     // [N, K]
  TensorRef b;     // [N], or empty
  MutTensorRef y;  // [M, N] written, or += with kAccumulate
  Write y_write = Write::kAssign;
};
struct LinearBackward {
  TensorRef x, w, dy;  // [M, K] [N, K] [M, N]
  MutTensorRef dx;     // [M, K] written or += by dx_write; empty: not wanted
  MutTensorRef dw;     // [N, K] accumulated (+=); empty: not wanted
  MutTensorRef db;     // [N] accumulated (+=); empty: no bias or not wanted
  Write dx_write = Write::kAssign;
};

struct LinearFunctions {
  void (*forward)(Context&, const LinearForward&);
  void (*backward)(Context&, const LinearBackward&);
};
using LinearImpl = Implementation<LinearFunctions>;

}  // namespace coca::ops

// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/rope.h"

#include "coca/ops/check.h"
#include "coca/ops/run.h"

namespace coca::ops {

namespace {

void check(const Context& context, const RopeRows& rows, TensorRef x, MutTensorRef y) {
  const Site at("rope", context);
  check_rows(at, rows, x);
  check_dtype(at, "y", y, x.dtype);
  check_heads(at, "y", y, x.shape);
}

}  // namespace

void rope_forward(Context& context, const RopeForward& a) {
  check(context, a.rows, a.x, a.y);
  run<RopeImpl>(context, a.x.dtype, &RopeFunctions::forward, a);
}

void rope_backward(Context& context, const RopeBackward& a) {
  check(context, a.rows, a.dy, a.dx);
  run<RopeImpl>(context, a.dy.dtype, &RopeFunctions::backward, a);
}

}  // namespace coca::ops

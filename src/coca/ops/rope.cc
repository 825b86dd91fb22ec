// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/rope.h"

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/rope.h"
#include "coca/kernels/ref/rope.h"
#include "coca/ops/impl.h"
#include "coca/ops/rope_check.h"

namespace coca::ops {

namespace {

void rotate(Context& context, const RopeRows& rows, TensorRef x, MutTensorRef y, cpu::Turn turn) {
  check_rows("rope", rows, x);
  check_heads("rope", "y", y, x.shape);
  const auto xv = x.view<float, 4>();
  const auto yv = y.view<float, 4>();
  if (use_ref(context, "rope", "cpu")) {
    ref::rope<float, float>(rows.cos.view<float, 3>(), rows.sin.view<float, 3>(), xv, yv,
                            turn == cpu::Turn::kForward ? 1.0 : -1.0);
    return;
  }
  const cpu::RopeTables tables{rows.cos.view<float, 3>(), rows.sin.view<float, 3>()};
  parallel_blocks(x.size(0) * x.size(1), row_grain(x),
                  [&](int64_t r0, int64_t r1) { cpu::rope_rows(tables, turn, xv, yv, r0, r1); });
}

}  // namespace

void rope_forward(Context& context, const RopeForward& a) {
  rotate(context, a.rows, a.x, a.y, cpu::Turn::kForward);
}

// The rotation is orthogonal: its gradient is the rotation by the negative angle.
void rope_backward(Context& context, const RopeBackward& a) {
  rotate(context, a.rows, a.dy, a.dx, cpu::Turn::kBack);
}

}  // namespace coca::ops

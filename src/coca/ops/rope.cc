// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/rope.h"

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/rope.h"
#include "coca/kernels/ref/rope.h"
#include "coca/ops/check.h"
#include "coca/ops/float_types.h"
#include "coca/ops/impl.h"
#include "coca/ops/rope_check.h"

namespace coca::ops {

namespace {

template <typename T>
void rotate_as(const cpu::RopeTables& tables, TensorRef x, MutTensorRef y, cpu::Turn turn) {
  const auto xv = x.view<T, 4>();
  const auto yv = y.view<T, 4>();
  parallel_blocks(x.size(0) * x.size(1), row_grain(x),
                  [&](int64_t r0, int64_t r1) { cpu::rope_rows(tables, turn, xv, yv, r0, r1); });
}

void rotate(Context& context, const RopeRows& rows, TensorRef x, MutTensorRef y, cpu::Turn turn) {
  check_rows("rope", rows, x);
  check_dtype("rope", "x", x, kF32OrBF16);
  check_dtype("rope", "y", y, x.dtype);
  check_heads("rope", "y", y, x.shape);
  const cpu::RopeTables tables{rows.cos.view<float, 3>(), rows.sin.view<float, 3>()};
  if (use_ref(context, "rope")) {
    const FloatInput from(x);
    const FloatOutput to(y);
    ref::rope<float, float>(tables.cos, tables.sin, from.ref().view<float, 4>(), to.ref().view<float, 4>(),
                            turn == cpu::Turn::kForward ? 1.0 : -1.0);
    return to.store();
  }
  with_float_type(x.dtype, [&](auto zero) { rotate_as<decltype(zero)>(tables, x, y, turn); });
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

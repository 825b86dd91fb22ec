// SPDX-License-Identifier: Apache-2.0
#include "coca/base/parallel.h"
#include "coca/kernels/args/blocks.h"
#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cpu/rope.h"
#include "coca/kernels/cpu/rows.h"

namespace coca::cpu {

namespace {

template <typename T>
void rotate_as(const RopeTables& tables, TensorRef x, MutTensorRef y, Turn turn) {
  const auto xv = x.view<T, 4>();
  const auto yv = y.view<T, 4>();
  parallel_blocks(x.size(0) * x.size(1), ops::row_grain(x),
                  [&](int64_t r0, int64_t r1) { rope_rows(tables, turn, xv, yv, r0, r1); });
}

void rotate(const ops::RopeRows& rows, TensorRef x, MutTensorRef y, Turn turn) {
  const RopeTables tables{rows.cos.view<float, 3>(), rows.sin.view<float, 3>()};
  ops::with_float_type(x.dtype, [&](auto zero) { rotate_as<decltype(zero)>(tables, x, y, turn); });
}

void forward(Context&, const ops::RopeForward& a) { rotate(a.rows, a.x, a.y, Turn::kForward); }
// The rotation is orthogonal: its gradient is the rotation by the negative angle.
void backward(Context&, const ops::RopeBackward& a) { rotate(a.rows, a.dy, a.dx, Turn::kBack); }

}  // namespace

const ops::RopeImpl rope_row{.name = "cpu", .run = {forward, backward}};

}  // namespace coca::cpu

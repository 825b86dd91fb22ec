// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/ref/rope.h"
#include "coca/kernels/ref/rows.h"
#include "coca/tensor/float_copies.h"

namespace coca::ref {

namespace {

void rotate(const ops::RopeRows& rows, TensorRef x, MutTensorRef y, double sign) {
  const FloatInput from(x);
  const FloatOutput to(y);
  rope<float, float>(rows.cos.view<float, 3>(), rows.sin.view<float, 3>(), from.ref().view<float, 4>(),
                     to.ref().view<float, 4>(), sign);
  to.store();
}

void forward(Context&, const ops::RopeForward& a) { rotate(a.rows, a.x, a.y, 1.0); }
void backward(Context&, const ops::RopeBackward& a) { rotate(a.rows, a.dy, a.dx, -1.0); }

}  // namespace

const ops::RopeImpl rope_row{.name = "ref", .run = {forward, backward}};

}  // namespace coca::ref

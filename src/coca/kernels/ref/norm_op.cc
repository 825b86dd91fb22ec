// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "coca/kernels/ref/norm.h"
#include "coca/kernels/ref/rows.h"
#include "coca/tensor/float_copies.h"

namespace coca::ref {

namespace {

NormArgs<float> args_of(ops::NormKind kind, double eps, TensorRef x, TensorRef w, TensorRef b) {
  return {kind == ops::NormKind::kLayerNorm ? Norm::kLayer : Norm::kRms,
          eps,
          x.size(0),
          x.size(1),
          x.as<float>(),
          w.as<float>(),
          b.as<float>()};
}

void forward(Context&, const ops::NormForward& a) {
  const FloatInput x(a.x);
  const FloatOutput y(a.y);
  norm_forward(args_of(a.kind, a.eps, x.ref(), a.w, a.b), y.ref().as<float>(), a.stat.as<float>());
  y.store();
}

// A written dx may be dy: it is made beside it.
void backward(Context&, const ops::NormBackward& a) {
  const FloatInput x(a.x), dy(a.dy);
  const FloatOutput dx(a.dx);
  Tensor zeros(a.dx_write == ops::Write::kAssign ? a.dx.shape : Dims{1});
  float* out = a.dx_write == ops::Write::kAssign ? zeros.values<float>().data() : dx.ref().as<float>();
  norm_backward(args_of(a.kind, 0.0, x.ref(), a.w, {}), a.stat.as<float>(), dy.ref().as<float>(), out, a.dw.as<float>(),
                a.db.as<float>());
  if (a.dx_write == ops::Write::kAssign) std::copy_n(out, a.dx.numel(), dx.ref().as<float>());
  dx.store();
}

}  // namespace

const ops::NormImpl norm_row{.name = "ref", .run = {forward, backward}};

}  // namespace coca::ref

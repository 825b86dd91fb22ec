// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/ref/residual.h"
#include "coca/kernels/ref/rows.h"
#include "coca/tensor/float_copies.h"

namespace coca::ref {

namespace {

void forward(Context&, const ops::ResidualForward& args) {
  residual_forward(args.a.numel(), args.a.as<float>(), FloatInput(args.b).ref().as<float>(),
                   FloatInput(args.c).ref().as<float>(), args.y.as<float>());
}

}  // namespace

const ops::ResidualImpl residual_row{.name = "ref", .run = {forward}};

}  // namespace coca::ref

// SPDX-License-Identifier: Apache-2.0
#include "coca/base/parallel.h"
#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cpu/residual.h"
#include "coca/kernels/cpu/rows.h"

namespace coca::cpu {

namespace {

template <typename T>
void sum_as(const ops::ResidualForward& args) {
  const float* a = args.a.as<float>();
  const T *b = args.b.as<T>(), *c = args.c.as<T>();
  float* y = args.y.as<float>();
  parallel_blocks(args.a.numel(), 65536,
                  [&](int64_t i0, int64_t i1) { residual_sum(a + i0, b + i0, c ? c + i0 : nullptr, y + i0, i1 - i0); });
}

void forward(Context&, const ops::ResidualForward& a) {
  ops::with_float_type(a.b.dtype, [&](auto zero) { sum_as<decltype(zero)>(a); });
}

}  // namespace

const ops::ResidualImpl residual_row{.name = "cpu", .run = {forward}};

}  // namespace coca::cpu

// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/residual.h"

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/residual.h"
#include "coca/kernels/ref/residual.h"
#include "coca/ops/check.h"
#include "coca/ops/float_types.h"
#include "coca/ops/impl.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "residual";

template <typename T>
void sum_as(const ResidualForward& args) {
  const float* a = args.a.as<float>();
  const T *b = args.b.as<T>(), *c = args.c.as<T>();
  float* y = args.y.as<float>();
  parallel_blocks(args.a.numel(), 65536, [&](int64_t i0, int64_t i1) {
    cpu::residual_sum(a + i0, b + i0, c ? c + i0 : nullptr, y + i0, i1 - i0);
  });
}

}  // namespace

void residual_forward(Context& context, const ResidualForward& args) {
  check_packed(kOp, "a", args.a);
  check_packed(kOp, "b", args.b, args.a.shape, kF32OrBF16);
  if (!args.c.empty()) check_packed(kOp, "c", args.c, args.a.shape, args.b.dtype);
  check_packed(kOp, "y", args.y, args.a.shape);
  if (use_ref(context, kOp))
    return ref::residual_forward(args.a.numel(), args.a.as<float>(), FloatInput(args.b).ref().as<float>(),
                                 FloatInput(args.c).ref().as<float>(), args.y.as<float>());
  with_float_type(args.b.dtype, [&](auto zero) { sum_as<decltype(zero)>(args); });
}

}  // namespace coca::ops

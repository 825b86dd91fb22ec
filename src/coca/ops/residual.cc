// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/residual.h"

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/residual.h"
#include "coca/kernels/ref/residual.h"
#include "coca/ops/check.h"
#include "coca/ops/impl.h"

namespace coca::ops {

void residual_forward(Context& context, const ResidualForward& args) {
  constexpr std::string_view kOp = "residual";
  check_packed(kOp, "a", args.a);
  check_packed(kOp, "b", args.b, args.a.shape);
  if (!args.c.empty()) check_packed(kOp, "c", args.c, args.a.shape);
  check_packed(kOp, "y", args.y, args.a.shape);
  const int64_t n = args.a.numel();
  const float *a = args.a.as<float>(), *b = args.b.as<float>(), *c = args.c.as<float>();
  float* y = args.y.as<float>();
  if (use_ref(context, kOp, "cpu")) return ref::residual_forward(n, a, b, c, y);
  parallel_blocks(n, 65536, [&](int64_t i0, int64_t i1) {
    cpu::residual_sum(a + i0, b + i0, c ? c + i0 : nullptr, y + i0, i1 - i0);
  });
}

}  // namespace coca::ops

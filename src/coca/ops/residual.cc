// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/residual.h"

#include "coca/ops/check.h"
#include "coca/ops/run.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "residual";

}  // namespace

void residual_forward(Context& context, const ResidualForward& args) {
  const Site at(kOp, context);
  check_packed(at, "a", args.a);
  check_packed(at, "b", args.b, args.a.shape, kF32OrBF16);
  if (!args.c.empty()) check_packed(at, "c", args.c, args.a.shape, args.b.dtype);
  check_packed(at, "y", args.y, args.a.shape);
  run<ResidualImpl>(context, args.b.dtype, &ResidualFunctions::forward, args);
}

}  // namespace coca::ops

// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/norm.h"

#include "coca/ops/check.h"
#include "coca/ops/run.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "norm";

}  // namespace

void norm_forward(Context& context, const NormForward& a) {
  const Site at(kOp, context);
  check_rank2(at, "x", a.x);
  const int64_t M = a.x.size(0), C = a.x.size(1);
  check_packed(at, "x", a.x, {M, C}, kF32OrBF16);
  check_packed(at, "w", a.w, {C});
  if (!a.b.empty()) check_packed(at, "b", a.b, {C});
  check_packed(at, "y", a.y, {M, C}, kF32OrBF16);
  if (!a.stat.empty()) check_packed(at, "stat", a.stat, {M, 2});
  COCA_CHECK(a.x.dtype == DType::kF32 || a.y.dtype == DType::kBF16, "[norm] x is bf16 and y f32; expected y in bf16");
  run<NormImpl>(context, a.x.dtype, &NormFunctions::forward, a);
}

void norm_backward(Context& context, const NormBackward& a) {
  const Site at(kOp, context);
  check_rank2(at, "x", a.x);
  const int64_t M = a.x.size(0), C = a.x.size(1);
  const bool bf16 = a.x.dtype == DType::kBF16;
  check_packed(at, "x", a.x, {M, C}, kF32OrBF16);
  check_packed(at, "w", a.w, {C});
  check_packed(at, "stat", a.stat, {M, 2});
  check_packed(at, "dy", a.dy, {M, C}, kF32OrBF16);
  check_packed(at, "dx", a.dx, {M, C}, a.x.dtype);
  if (!a.dw.empty()) check_packed(at, "dw", a.dw, {C});
  if (!a.db.empty()) check_packed(at, "db", a.db, {C});
  COCA_CHECK(!bf16 || (a.dy.dtype == DType::kBF16 && a.dx_write == Write::kAssign),
             "[norm] with x in bf16, dy must be bf16 and dx written, not accumulated");
  run<NormImpl>(context, a.x.dtype, &NormFunctions::backward, a);
}

}  // namespace coca::ops

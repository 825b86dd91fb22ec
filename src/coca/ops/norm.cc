// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/norm.h"

#include <algorithm>

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/linear.h"
#include "coca/kernels/cpu/norm.h"
#include "coca/kernels/ref/norm.h"
#include "coca/ops/check.h"
#include "coca/ops/float_types.h"
#include "coca/ops/impl.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "norm";

ref::NormArgs<float> ref_args(NormKind kind, double eps, TensorRef x, TensorRef w, TensorRef b) {
  return {kind == NormKind::kLayerNorm ? ref::Norm::kLayer : ref::Norm::kRms,
          eps,
          x.size(0),
          x.size(1),
          x.as<float>(),
          w.as<float>(),
          b.as<float>()};
}

cpu::Norm cpu_kind(NormKind kind) {
  return kind == NormKind::kLayerNorm ? cpu::Norm::kLayer : cpu::Norm::kRms;
}

// Per block of rows a partial [2, C] for dw and db in scratch; then the partials are added in the order of
// blocks.
template <typename DY>
void backward_cpu(Context& context, const NormBackward& a) {
  const int64_t M = a.x.size(0), C = a.x.size(1), block_rows = reduction_rows(M);
  const int64_t blocks = (M + block_rows - 1) / block_rows;
  float* partial = context.scratch_tensor({std::max<int64_t>(1, blocks), 2, C}).as<float>();
  const float *x = a.x.as<float>(), *stat = a.stat.as<float>(), *w = a.w.as<float>();
  const DY* dy = a.dy.as<DY>();
  float *dx = a.dx.as<float>(), *dw = a.dw.as<float>(), *db = a.db.as<float>();
  parallel_blocks(M, block_rows, [&](int64_t m0, int64_t m1) {
    float* sums = partial + m0 / block_rows * 2 * C;
    std::fill_n(sums, 2 * C, 0.0f);
    cpu::norm_rows_backward(cpu::NormRowsBackward<DY>{.kind = cpu_kind(a.kind),
                                                      .C = C,
                                                      .x = x + m0 * C,
                                                      .w = w,
                                                      .stat = stat + 2 * m0,
                                                      .dy = dy + m0 * C,
                                                      .dx = dx + m0 * C,
                                                      .dw = sums,
                                                      .db = db ? sums + C : nullptr},
                            m1 - m0);
  });
  parallel_blocks(C, 1024, [&](int64_t c0, int64_t c1) {
    cpu::add_column_sums(partial + c0, 2 * C, blocks, c1 - c0, dw + c0);
    if (db) cpu::add_column_sums(partial + C + c0, 2 * C, blocks, c1 - c0, db + c0);
  });
}

template <typename Y>
void forward_cpu(const NormForward& a) {
  const int64_t M = a.x.size(0), C = a.x.size(1);
  const float *x = a.x.as<float>(), *w = a.w.as<float>(), *b = a.b.as<float>();
  Y* y = a.y.as<Y>();
  float* stat = a.stat.as<float>();
  parallel_blocks(M, grain_of(C, 32768), [&](int64_t m0, int64_t m1) {
    cpu::norm_rows(cpu::NormRows<Y>{.kind = cpu_kind(a.kind),
                                    .eps = a.eps,
                                    .C = C,
                                    .x = x + m0 * C,
                                    .w = w,
                                    .b = b,
                                    .y = y + m0 * C,
                                    .stat = stat ? stat + 2 * m0 : nullptr},
                   m1 - m0);
  });
}

void forward_ref(const NormForward& a) {
  const FloatOutput y(a.y);
  ref::norm_forward(ref_args(a.kind, a.eps, a.x, a.w, a.b), y.ref().as<float>(), a.stat.as<float>());
  y.store();
}

}  // namespace

void norm_forward(Context& context, const NormForward& a) {
  check_rank2(kOp, "x", a.x);
  const int64_t M = a.x.size(0), C = a.x.size(1);
  check_packed(kOp, "x", a.x, {M, C});
  check_packed(kOp, "w", a.w, {C});
  if (!a.b.empty()) check_packed(kOp, "b", a.b, {C});
  check_packed(kOp, "y", a.y, {M, C}, kF32OrBF16);
  if (!a.stat.empty()) check_packed(kOp, "stat", a.stat, {M, 2});
  if (use_ref(context, kOp)) return forward_ref(a);
  with_float_type(a.y.dtype, [&](auto zero) { forward_cpu<decltype(zero)>(a); });
}

void norm_backward(Context& context, const NormBackward& a) {
  check_rank2(kOp, "x", a.x);
  const int64_t M = a.x.size(0), C = a.x.size(1);
  check_packed(kOp, "x", a.x, {M, C});
  check_packed(kOp, "w", a.w, {C});
  check_packed(kOp, "stat", a.stat, {M, 2});
  check_packed(kOp, "dy", a.dy, {M, C}, kF32OrBF16);
  check_packed(kOp, "dx", a.dx, {M, C});
  check_packed(kOp, "dw", a.dw, {C});
  if (!a.db.empty()) check_packed(kOp, "db", a.db, {C});
  if (use_ref(context, kOp))
    return ref::norm_backward(ref_args(a.kind, 0.0, a.x, a.w, {}), a.stat.as<float>(),
                              FloatInput(a.dy).ref().as<float>(), a.dx.as<float>(), a.dw.as<float>(),
                              a.db.as<float>());
  with_float_type(a.dy.dtype, [&](auto zero) { backward_cpu<decltype(zero)>(context, a); });
}

}  // namespace coca::ops

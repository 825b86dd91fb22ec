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
template <typename X, typename DY, typename DX>
void backward_cpu(Context& context, const NormBackward& a) {
  const int64_t M = a.x.size(0), C = a.x.size(1), block_rows = reduction_rows(M);
  const int64_t blocks = (M + block_rows - 1) / block_rows;
  float* partial = context.scratch_tensor({std::max<int64_t>(1, blocks), 2, C}).as<float>();
  const X* x = a.x.as<X>();
  const float *stat = a.stat.as<float>(), *w = a.w.as<float>();
  const DY* dy = a.dy.as<DY>();
  DX* dx = a.dx.as<DX>();
  float *dw = a.dw.as<float>(), *db = a.db.as<float>();
  parallel_blocks(M, block_rows, [&](int64_t m0, int64_t m1) {
    float* sums = partial + m0 / block_rows * 2 * C;
    std::fill_n(sums, 2 * C, 0.0f);
    cpu::norm_rows_backward(
        cpu::NormRowsBackward<X, DY, DX>{.kind = cpu_kind(a.kind),
                                         .dx_write = a.dx_write == Write::kAssign ? cpu::NormDx::kWrite : cpu::NormDx::kAdd,
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
  if (!dw && !db) return;
  parallel_blocks(C, 1024, [&](int64_t c0, int64_t c1) {
    if (dw) cpu::add_column_sums(partial + c0, 2 * C, blocks, c1 - c0, dw + c0);
    if (db) cpu::add_column_sums(partial + C + c0, 2 * C, blocks, c1 - c0, db + c0);
  });
}

template <typename X, typename Y>
void forward_cpu(const NormForward& a) {
  const int64_t M = a.x.size(0), C = a.x.size(1);
  const X* x = a.x.as<X>();
  const float *w = a.w.as<float>(), *b = a.b.as<float>();
  Y* y = a.y.as<Y>();
  float* stat = a.stat.as<float>();
  parallel_blocks(M, grain_of(C, 32768), [&](int64_t m0, int64_t m1) {
    cpu::norm_rows(cpu::NormRows<X, Y>{.kind = cpu_kind(a.kind),
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
  const FloatInput x(a.x);
  const FloatOutput y(a.y);
  ref::norm_forward(ref_args(a.kind, a.eps, x.ref(), a.w, a.b), y.ref().as<float>(), a.stat.as<float>());
  y.store();
}

// A written dx may be dy: it is made beside it.
void backward_ref(const NormBackward& a) {
  const FloatInput x(a.x), dy(a.dy);
  const FloatOutput dx(a.dx);
  Tensor zeros(a.dx_write == Write::kAssign ? a.dx.shape : Dims{1});
  float* out = a.dx_write == Write::kAssign ? zeros.values<float>().data() : dx.ref().as<float>();
  ref::norm_backward(ref_args(a.kind, 0.0, x.ref(), a.w, {}), a.stat.as<float>(), dy.ref().as<float>(), out, a.dw.as<float>(),
                     a.db.as<float>());
  if (a.dx_write == Write::kAssign) std::copy_n(out, a.dx.numel(), dx.ref().as<float>());
  dx.store();
}

}  // namespace

void norm_forward(Context& context, const NormForward& a) {
  check_rank2(kOp, "x", a.x);
  const int64_t M = a.x.size(0), C = a.x.size(1);
  check_packed(kOp, "x", a.x, {M, C}, kF32OrBF16);
  check_packed(kOp, "w", a.w, {C});
  if (!a.b.empty()) check_packed(kOp, "b", a.b, {C});
  check_packed(kOp, "y", a.y, {M, C}, kF32OrBF16);
  if (!a.stat.empty()) check_packed(kOp, "stat", a.stat, {M, 2});
  COCA_CHECK(a.x.dtype == DType::kF32 || a.y.dtype == DType::kBF16, "[norm] x is bf16 and y f32; expected y in bf16");
  if (use_ref(context, kOp)) return forward_ref(a);
  if (a.x.dtype == DType::kBF16) return forward_cpu<BF16, BF16>(a);
  with_float_type(a.y.dtype, [&](auto zero) { forward_cpu<float, decltype(zero)>(a); });
}

void norm_backward(Context& context, const NormBackward& a) {
  check_rank2(kOp, "x", a.x);
  const int64_t M = a.x.size(0), C = a.x.size(1);
  const bool bf16 = a.x.dtype == DType::kBF16;
  check_packed(kOp, "x", a.x, {M, C}, kF32OrBF16);
  check_packed(kOp, "w", a.w, {C});
  check_packed(kOp, "stat", a.stat, {M, 2});
  check_packed(kOp, "dy", a.dy, {M, C}, kF32OrBF16);
  check_packed(kOp, "dx", a.dx, {M, C}, a.x.dtype);
  if (!a.dw.empty()) check_packed(kOp, "dw", a.dw, {C});
  if (!a.db.empty()) check_packed(kOp, "db", a.db, {C});
  COCA_CHECK(!bf16 || (a.dy.dtype == DType::kBF16 && a.dx_write == Write::kAssign),
             "[norm] with x in bf16, dy must be bf16 and dx written, not accumulated");
  if (use_ref(context, kOp)) return backward_ref(a);
  if (bf16) return backward_cpu<BF16, BF16, BF16>(context, a);
  with_float_type(a.dy.dtype, [&](auto zero) { backward_cpu<float, decltype(zero), float>(context, a); });
}

}  // namespace coca::ops

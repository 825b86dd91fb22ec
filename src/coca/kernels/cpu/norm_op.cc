// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "coca/base/parallel.h"
#include "coca/kernels/args/blocks.h"
#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cpu/linear.h"
#include "coca/kernels/cpu/norm.h"
#include "coca/kernels/cpu/rows.h"

namespace coca::cpu {

namespace {

Norm kernel_kind(ops::NormKind kind) { return kind == ops::NormKind::kLayerNorm ? Norm::kLayer : Norm::kRms; }

// Per block of rows a partial [2, C] for dw and db in scratch; then the partials are added in the order of
// blocks.
template <typename X, typename DY, typename DX>
void backward_as(Context& context, const ops::NormBackward& a) {
  const int64_t M = a.x.size(0), C = a.x.size(1), block_rows = ops::reduction_rows(M);
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
    norm_rows_backward(
        NormRowsBackward<X, DY, DX>{.kind = kernel_kind(a.kind),
                                    .dx_write = a.dx_write == ops::Write::kAssign ? NormDx::kWrite : NormDx::kAdd,
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
    if (dw) add_column_sums(partial + c0, 2 * C, blocks, c1 - c0, dw + c0);
    if (db) add_column_sums(partial + C + c0, 2 * C, blocks, c1 - c0, db + c0);
  });
}

template <typename X, typename Y>
void forward_as(const ops::NormForward& a) {
  const int64_t M = a.x.size(0), C = a.x.size(1);
  const X* x = a.x.as<X>();
  const float *w = a.w.as<float>(), *b = a.b.as<float>();
  Y* y = a.y.as<Y>();
  float* stat = a.stat.as<float>();
  parallel_blocks(M, ops::grain_of(C, 32768), [&](int64_t m0, int64_t m1) {
    norm_rows(NormRows<X, Y>{.kind = kernel_kind(a.kind),
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

void forward(Context&, const ops::NormForward& a) {
  if (a.x.dtype == DType::kBF16) return forward_as<BF16, BF16>(a);
  ops::with_float_type(a.y.dtype, [&](auto zero) { forward_as<float, decltype(zero)>(a); });
}

void backward(Context& context, const ops::NormBackward& a) {
  if (a.x.dtype == DType::kBF16) return backward_as<BF16, BF16, BF16>(context, a);
  ops::with_float_type(a.dy.dtype, [&](auto zero) { backward_as<float, decltype(zero), float>(context, a); });
}

}  // namespace

const ops::NormImpl norm_row{.name = "cpu", .run = {forward, backward}};

}  // namespace coca::cpu

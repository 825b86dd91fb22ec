// SPDX-License-Identifier: Apache-2.0
#include "coca/base/parallel.h"
#include "coca/kernels/args/blocks.h"
#include "coca/kernels/cpu/collinear.h"
#include "coca/kernels/cpu/rows.h"

namespace coca::cpu {

namespace {

// Spreads rows(options, a, row0, row1) over threads; the rows are those of x [B, N, heads, numbers].
template <typename Args>
void over_rows(const ops::CollinearOptions& options, TensorRef x, const Args& a,
               void (*rows)(const ops::CollinearOptions&, const Args&, int64_t, int64_t)) {
  parallel_blocks(x.size(0) * x.size(1), ops::row_grain(x),
                  [&](int64_t row0, int64_t row1) { rows(options, a, row0, row1); });
}

void fold(Context&, const ops::CollinearOptions& options, const ops::CollinearFold& a) {
  over_rows(options, a.t, a, collinear_fold_rows);
}
void query(Context&, const ops::CollinearOptions& options, const ops::CollinearQuery& a) {
  over_rows(options, a.q_eff, a, collinear_query_rows);
}
void key(Context&, const ops::CollinearOptions& options, const ops::CollinearKey& a) {
  over_rows(options, a.k_eff, a, collinear_key_rows);
}
void key_backward(Context&, const ops::CollinearOptions& options, const ops::CollinearKeyBackward& a) {
  over_rows(options, a.dk_eff, a, collinear_tbar_rows_backward);
}
void fold_backward(Context&, const ops::CollinearOptions& options, const ops::CollinearFoldBackward& a) {
  over_rows(options, a.t, a, collinear_fold_rows_backward);
}
void forward(Context& context, const ops::CollinearOptions& options, const ops::CollinearForward& a) {
  query(context, options, {.rows = a.rows, .q = a.q, .q_eff = a.q_eff});
  over_rows(options, a.k_eff, a, collinear_key_rows_from_t);
}
void backward(Context&, const ops::CollinearOptions& options, const ops::CollinearBackward& a) {
  over_rows(options, a.dq_eff, a, collinear_query_rows_backward);
  over_rows(options, a.dk_eff, a, collinear_key_rows_backward);
}

bool supports(const ops::CollinearCase& c) { return !c.official_partial; }

}  // namespace

const ops::CollinearImpl collinear_row{
    .name = "cpu", .supports = supports, .run = {forward, backward, fold, query, key, key_backward, fold_backward}};

}  // namespace coca::cpu

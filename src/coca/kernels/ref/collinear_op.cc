// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <vector>

#include "coca/kernels/ref/collinear.h"
#include "coca/kernels/ref/rows.h"
#include "coca/tensor/float_copies.h"

namespace coca::ref {

namespace {

struct RowAccess {  // cos and sin of one row, for the reference
  TensorView<const float, 3> cos, sin;
  static auto at(const TensorView<const float, 3>& rows, int64_t b, int64_t n) {
    return [rows, b = rows.size(0) == 1 ? 0 : b, n](int64_t j) { return rows(b, n, j); };
  }
  auto cos_at(int64_t b, int64_t n) const { return at(cos, b, n); }
  auto sin_at(int64_t b, int64_t n) const { return at(sin, b, n); }
};

template <typename Body>
void for_each_head(TensorRef x, const Body& body) {
  for (int64_t b = 0; b < x.size(0); ++b)
    for (int64_t n = 0; n < x.size(1); ++n)
      for (int64_t h = 0; h < x.size(2); ++h) body(b, n, h);
}

// With R = D the two folds are the same; the official routine serves the fold that differs.
bool official(const ops::CollinearOptions& options, int64_t R, int64_t D) {
  return options.fold == ops::Fold::kOfficial && R != D;
}

struct Plan {
  bool official;
  int kind;
};
Plan plan_of(const ops::CollinearOptions& options, int64_t R, int64_t D) {
  return {official(options, R, D), static_cast<int>(options.kind)};
}

RowAccess row_access(const ops::RopeRows& rows) { return {rows.cos.view<float, 3>(), rows.sin.view<float, 3>()}; }

ops::RopeRows rows_of_keys(const ops::RopeRows& rows, const ops::RopeRows& key_rows) {
  return key_rows.cos.empty() ? rows : key_rows;
}

// The rotary dims whose pairs fold: the official routine's pairs are (j, j + D/2).
int64_t fold_dims(bool official, int64_t R, int64_t D) { return official ? D : R; }

void fold_heads(bool official, const ops::CollinearFold& a) {
  const int64_t D = 2 * a.tbar.size(3), R = fold_dims(official, a.R, D);
  const FloatInput t_copy(a.t);
  const FloatOutput tbar_copy(a.tbar);
  const auto t = t_copy.ref().view<float, 4>();
  const auto tbar = tbar_copy.ref().view<float, 4>();
  for_each_head(a.t, [&](int64_t b, int64_t n, int64_t g) {
    collinear_fold_head(t.ptr(b, n, g), t.size(3), R, D, tbar.ptr(b, n, g));
  });
  tbar_copy.store();
}

void query_heads(const Plan& plan, const ops::CollinearQuery& a) {
  const int64_t D = a.q.size(3), R = 2 * a.rows.cos.size(2);
  const FloatInput q_copy(a.q);
  const FloatOutput q_eff_copy(a.q_eff);
  const auto q = q_copy.ref().view<float, 4>();
  const auto q_eff = q_eff_copy.ref().view<float, 4>();
  const RowAccess rows = row_access(a.rows);
  for_each_head(a.q, [&](int64_t b, int64_t n, int64_t h) {
    if (plan.official)
      collinear_official_head<float>(q.ptr(b, n, h), nullptr, R, D, rows.cos_at(b, n), rows.sin_at(b, n),
                                     q_eff.ptr(b, n, h), nullptr);
    else
      collinear_query_head(plan.kind, q.ptr(b, n, h), R, D, rows.cos_at(b, n), rows.sin_at(b, n), q_eff.ptr(b, n, h));
  });
  q_eff_copy.store();
}

// k_eff [D] of tbar [D/2].
template <typename Cos, typename Sin>
void key_head(const Plan& plan, const float* tbar, int64_t R, int64_t D, Cos cos, Sin sin, float* k_eff) {
  if (!plan.official) return collinear_key_head(plan.kind, tbar, R, D, cos, sin, k_eff);
  std::vector<float> full(static_cast<size_t>(D));  // folding [tbar, tbar] gives tbar back
  for (int64_t i = 0; i < D; ++i) full[static_cast<size_t>(i)] = tbar[i % (D / 2)];
  collinear_official_head<float>(nullptr, full.data(), R, D, cos, sin, nullptr, k_eff);
}

// dtbar [D/2] += from dk_eff [D].
template <typename Cos, typename Sin>
void tbar_head_backward(const Plan& plan, const float* dk_eff, int64_t R, int64_t D, Cos cos, Sin sin, float* dtbar) {
  if (plan.official)
    collinear_official_tbar_head_backward(dk_eff, R, D, cos, sin, dtbar);
  else
    collinear_tbar_head_backward(plan.kind, dk_eff, R, D, cos, sin, dtbar);
}

void key_heads(const Plan& plan, const ops::CollinearKey& a) {
  const int64_t D = a.k_eff.size(3), R = 2 * a.rows.cos.size(2);
  const FloatInput tbar_copy(a.tbar);
  const FloatOutput k_eff_copy(a.k_eff);
  const auto tbar = tbar_copy.ref().view<float, 4>();
  const auto k_eff = k_eff_copy.ref().view<float, 4>();
  const RowAccess rows = row_access(a.rows);
  for_each_head(a.tbar, [&](int64_t b, int64_t n, int64_t g) {
    key_head(plan, tbar.ptr(b, n, g), R, D, rows.cos_at(b, n), rows.sin_at(b, n), k_eff.ptr(b, n, g));
  });
  k_eff_copy.store();
}

// t folded and rotated by the rows into k_eff [B, N, G, D].
struct KeyFromT {
  ops::RopeRows rows;
  TensorRef t;
  MutTensorRef k_eff;
};

void key_from_t_heads(const Plan& plan, const KeyFromT& a) {
  const int64_t D = a.k_eff.size(3), R = 2 * a.rows.cos.size(2);
  const FloatInput t_copy(a.t);
  const FloatOutput k_eff_copy(a.k_eff);
  const auto t = t_copy.ref().view<float, 4>();
  const auto k_eff = k_eff_copy.ref().view<float, 4>();
  const RowAccess rows = row_access(a.rows);
  std::vector<float> tbar(static_cast<size_t>(D / 2));
  for_each_head(a.t, [&](int64_t b, int64_t n, int64_t g) {
    collinear_fold_head(t.ptr(b, n, g), t.size(3), fold_dims(plan.official, R, D), D, tbar.data());
    key_head(plan, tbar.data(), R, D, rows.cos_at(b, n), rows.sin_at(b, n), k_eff.ptr(b, n, g));
  });
  k_eff_copy.store();
}

void backward_heads(const Plan& plan, const ops::CollinearBackward& a) {
  const int64_t D = a.q.size(3), R = 2 * a.rows.cos.size(2);
  const FloatInput q_copy(a.q), t_copy(a.t), dq_eff_copy(a.dq_eff), dk_eff_copy(a.dk_eff);
  const FloatOutput dq_copy(a.dq), dt_copy(a.dt);
  const auto q = q_copy.ref().view<float, 4>(), t = t_copy.ref().view<float, 4>();
  const auto dq_eff = dq_eff_copy.ref().view<float, 4>(), dk_eff = dk_eff_copy.ref().view<float, 4>();
  const auto dq = dq_copy.ref().view<float, 4>(), dt = dt_copy.ref().view<float, 4>();
  const RowAccess rows = row_access(a.rows), key_rows = row_access(rows_of_keys(a.rows, a.key_rows));
  // The official routine does both sides at once: here its queries alone count.
  std::vector<float> scratch(static_cast<size_t>(D)), zeros(static_cast<size_t>(D)), sink(static_cast<size_t>(D));
  for_each_head(a.q, [&](int64_t b, int64_t n, int64_t h) {
    const auto cos = rows.cos_at(b, n);
    const auto sin = rows.sin_at(b, n);
    if (plan.official)
      collinear_official_head_backward<float>(q.ptr(b, n, h), zeros.data(), dq_eff.ptr(b, n, h), zeros.data(), R, D,
                                              cos, sin, dq.ptr(b, n, h), sink.data(), scratch.data());
    else
      collinear_query_head_backward<float>(plan.kind, q.ptr(b, n, h), dq_eff.ptr(b, n, h), R, D, cos, sin,
                                           dq.ptr(b, n, h));
  });
  std::vector<float> dtbar(static_cast<size_t>(D / 2));
  for_each_head(a.t, [&](int64_t b, int64_t n, int64_t g) {
    std::fill(dtbar.begin(), dtbar.end(), 0.0f);
    tbar_head_backward(plan, dk_eff.ptr(b, n, g), R, D, key_rows.cos_at(b, n), key_rows.sin_at(b, n), dtbar.data());
    collinear_fold_head_backward(t.ptr(b, n, g), dtbar.data(), t.size(3), fold_dims(plan.official, R, D), D,
                                 dt.ptr(b, n, g));
  });
  dq_copy.store();
  dt_copy.store();
}

void tbar_backward_heads(const Plan& plan, const ops::CollinearKeyBackward& a) {
  const int64_t D = a.dk_eff.size(3), R = 2 * a.rows.cos.size(2);
  const auto dk_eff = a.dk_eff.view<float, 4>();
  const auto dtbar = a.dtbar.view<float, 4>();
  const RowAccess rows = row_access(a.rows);
  for_each_head(a.dk_eff, [&](int64_t b, int64_t n, int64_t g) {
    tbar_head_backward(plan, dk_eff.ptr(b, n, g), R, D, rows.cos_at(b, n), rows.sin_at(b, n), dtbar.ptr(b, n, g));
  });
}

void fold_backward_heads(bool official, const ops::CollinearFoldBackward& a) {
  const int64_t D = 2 * a.dtbar.size(3), R = fold_dims(official, a.R, D);
  const FloatInput t_copy(a.t);
  const FloatOutput dt_copy(a.dt);
  const auto t = t_copy.ref().view<float, 4>(), dtbar = a.dtbar.view<float, 4>();
  const auto dt = dt_copy.ref().view<float, 4>();
  for_each_head(a.t, [&](int64_t b, int64_t n, int64_t g) {
    collinear_fold_head_backward<float>(t.ptr(b, n, g), dtbar.ptr(b, n, g), t.size(3), R, D, dt.ptr(b, n, g));
  });
  dt_copy.store();
}

Plan plan_of(const ops::CollinearOptions& options, const ops::RopeRows& rows, int64_t D) {
  return plan_of(options, 2 * rows.cos.size(2), D);
}

void fold(Context&, const ops::CollinearOptions& options, const ops::CollinearFold& a) {
  fold_heads(official(options, a.R, 2 * a.tbar.size(3)), a);
}
void query(Context&, const ops::CollinearOptions& options, const ops::CollinearQuery& a) {
  query_heads(plan_of(options, a.rows, a.q.size(3)), a);
}
void key(Context&, const ops::CollinearOptions& options, const ops::CollinearKey& a) {
  key_heads(plan_of(options, a.rows, a.k_eff.size(3)), a);
}
void key_backward(Context&, const ops::CollinearOptions& options, const ops::CollinearKeyBackward& a) {
  tbar_backward_heads(plan_of(options, a.rows, a.dk_eff.size(3)), a);
}
void fold_backward(Context&, const ops::CollinearOptions& options, const ops::CollinearFoldBackward& a) {
  fold_backward_heads(official(options, a.R, 2 * a.dtbar.size(3)), a);
}
void forward(Context&, const ops::CollinearOptions& options, const ops::CollinearForward& a) {
  const Plan plan = plan_of(options, a.rows, a.q.size(3));
  query_heads(plan, {.rows = a.rows, .q = a.q, .q_eff = a.q_eff});
  key_from_t_heads(plan, {.rows = rows_of_keys(a.rows, a.key_rows), .t = a.t, .k_eff = a.k_eff});
}
void backward(Context&, const ops::CollinearOptions& options, const ops::CollinearBackward& a) {
  backward_heads(plan_of(options, a.rows, a.q.size(3)), a);
}

}  // namespace

const ops::CollinearImpl collinear_row{.name = "ref",
                                       .run = {forward, backward, fold, query, key, key_backward, fold_backward}};

}  // namespace coca::ref

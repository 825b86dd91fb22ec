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

// What the functions share. With R = E the two folds are the same; the official routine serves the fold that differs.
struct Plan {
  const ops::CollinearOptions& options;
  CollinearHead head;
  bool official;
  ops::KeyDirection direction;

  Plan(const ops::CollinearOptions& options_, int64_t R, int64_t E)
      : options(options_),
        head{R, E, options_.content},
        official(options_.fold == ops::Fold::kOfficial && R != E),
        direction(ops::key_direction(options_.kind)) {}
  Plan(const ops::CollinearOptions& options_, const ops::RopeRows& rows, int64_t E)
      : Plan(options_, 2 * rows.cos.size(2), E) {}
  // The pairs that fold: the official routine's are (j, j + E/2).
  CollinearHead fold() const { return {official ? head.E : head.R, head.E, head.content}; }
};

RowAccess row_access(const ops::RopeRows& rows) { return {rows.cos.view<float, 3>(), rows.sin.view<float, 3>()}; }

ops::RopeRows rows_of_keys(const ops::RopeRows& rows, const ops::RopeRows& key_rows) {
  return key_rows.cos.empty() ? rows : key_rows;
}

void fold(Context&, const ops::CollinearOptions& options, const ops::CollinearFold& a) {
  const Plan plan(options, a.R, ops::effective_width(options, a.tbar.size(3)));
  const FloatInput t_copy(a.t);
  const FloatOutput tbar_copy(a.tbar);
  const auto t = t_copy.ref().view<float, 4>();
  const auto tbar = tbar_copy.ref().view<float, 4>();
  for_each_head(a.t, [&](int64_t b, int64_t n, int64_t g) {
    collinear_fold_head(options.magnitude, plan.fold(), t.ptr(b, n, g), t.size(3), tbar.ptr(b, n, g));
  });
  tbar_copy.store();
}

void query(Context&, const ops::CollinearOptions& options, const ops::CollinearQuery& a) {
  const Plan plan(options, a.rows, a.q_eff.size(3));
  const FloatInput q_copy(a.q);
  const FloatOutput q_eff_copy(a.q_eff);
  const auto q = q_copy.ref().view<float, 4>();
  const auto q_eff = q_eff_copy.ref().view<float, 4>();
  const RowAccess rows = row_access(a.rows);
  ops::with_form(options.kind, [&](auto form) {
    for_each_head(a.q, [&](int64_t b, int64_t n, int64_t h) {
      const auto cos = rows.cos_at(b, n), sin = rows.sin_at(b, n);
      if (plan.official)
        collinear_official_head<float>(q.ptr(b, n, h), nullptr, plan.head.R, plan.head.E, cos, sin, q_eff.ptr(b, n, h),
                                       nullptr);
      else
        collinear_query_head(form, plan.head, q.ptr(b, n, h), cos, sin, q_eff.ptr(b, n, h));
    });
  });
  q_eff_copy.store();
}

// k_eff [E] of tbar [P + C].
template <typename Cos, typename Sin>
void key_head(const Plan& plan, const float* tbar, Cos cos, Sin sin, float* k_eff) {
  if (!plan.official) return collinear_key_head(plan.direction, plan.head, tbar, cos, sin, k_eff);
  const int64_t E = plan.head.E;
  std::vector<float> full(static_cast<size_t>(E));  // folding [tbar, tbar] gives tbar back
  for (int64_t i = 0; i < E; ++i) full[static_cast<size_t>(i)] = tbar[i % (E / 2)];
  collinear_official_head<float>(nullptr, full.data(), plan.head.R, E, cos, sin, nullptr, k_eff);
}

// dtbar [P + C] += from dk_eff [E].
template <typename Cos, typename Sin>
void tbar_head_backward(const Plan& plan, const float* dk_eff, Cos cos, Sin sin, float* dtbar) {
  if (plan.official)
    collinear_official_tbar_head_backward(dk_eff, plan.head.R, plan.head.E, cos, sin, dtbar);
  else
    collinear_tbar_head_backward(plan.direction, plan.head, dk_eff, cos, sin, dtbar);
}

void key(Context&, const ops::CollinearOptions& options, const ops::CollinearKey& a) {
  const Plan plan(options, a.rows, a.k_eff.size(3));
  const FloatInput tbar_copy(a.tbar);
  const FloatOutput k_eff_copy(a.k_eff);
  const auto tbar = tbar_copy.ref().view<float, 4>();
  const auto k_eff = k_eff_copy.ref().view<float, 4>();
  const RowAccess rows = row_access(a.rows);
  for_each_head(a.tbar, [&](int64_t b, int64_t n, int64_t g) {
    key_head(plan, tbar.ptr(b, n, g), rows.cos_at(b, n), rows.sin_at(b, n), k_eff.ptr(b, n, g));
  });
  k_eff_copy.store();
}

// t folded and rotated by the keys' rows into k_eff.
void key_from_t(const ops::CollinearOptions& options, const ops::CollinearForward& a) {
  const Plan plan(options, a.rows, a.k_eff.size(3));
  const FloatInput t_copy(a.t);
  const FloatOutput k_eff_copy(a.k_eff);
  const auto t = t_copy.ref().view<float, 4>();
  const auto k_eff = k_eff_copy.ref().view<float, 4>();
  const RowAccess rows = row_access(rows_of_keys(a.rows, a.key_rows));
  std::vector<float> tbar(static_cast<size_t>(plan.head.stored()));
  for_each_head(a.t, [&](int64_t b, int64_t n, int64_t g) {
    collinear_fold_head(options.magnitude, plan.fold(), t.ptr(b, n, g), t.size(3), tbar.data());
    key_head(plan, tbar.data(), rows.cos_at(b, n), rows.sin_at(b, n), k_eff.ptr(b, n, g));
  });
  k_eff_copy.store();
}

void query_backward(const ops::CollinearOptions& options, const ops::CollinearBackward& a) {
  const Plan plan(options, a.rows, a.dq_eff.size(3));
  const FloatInput q_copy(a.q), dq_eff_copy(a.dq_eff);
  const FloatOutput dq_copy(a.dq);
  const auto q = q_copy.ref().view<float, 4>(), dq_eff = dq_eff_copy.ref().view<float, 4>();
  const auto dq = dq_copy.ref().view<float, 4>();
  const RowAccess rows = row_access(a.rows);
  // The official routine does both sides at once: here its queries alone count.
  const auto E = static_cast<size_t>(plan.head.E);
  std::vector<float> scratch(E), zeros(E), sink(E);
  ops::with_form(options.kind, [&](auto form) {
    for_each_head(a.q, [&](int64_t b, int64_t n, int64_t h) {
      const auto cos = rows.cos_at(b, n), sin = rows.sin_at(b, n);
      if (plan.official)
        collinear_official_head_backward<float>(q.ptr(b, n, h), zeros.data(), dq_eff.ptr(b, n, h), zeros.data(),
                                                plan.head.R, plan.head.E, cos, sin, dq.ptr(b, n, h), sink.data(),
                                                scratch.data());
      else
        collinear_query_head_backward<decltype(form), float>(form, plan.head, q.ptr(b, n, h), dq_eff.ptr(b, n, h), cos,
                                                             sin, dq.ptr(b, n, h));
    });
  });
  dq_copy.store();
}

void key_from_t_backward(const ops::CollinearOptions& options, const ops::CollinearBackward& a) {
  const Plan plan(options, a.rows, a.dk_eff.size(3));
  const FloatInput t_copy(a.t), dk_eff_copy(a.dk_eff);
  const FloatOutput dt_copy(a.dt);
  const auto t = t_copy.ref().view<float, 4>(), dk_eff = dk_eff_copy.ref().view<float, 4>();
  const auto dt = dt_copy.ref().view<float, 4>();
  const RowAccess rows = row_access(rows_of_keys(a.rows, a.key_rows));
  std::vector<float> dtbar(static_cast<size_t>(plan.head.stored()));
  for_each_head(a.t, [&](int64_t b, int64_t n, int64_t g) {
    std::fill(dtbar.begin(), dtbar.end(), 0.0f);
    tbar_head_backward(plan, dk_eff.ptr(b, n, g), rows.cos_at(b, n), rows.sin_at(b, n), dtbar.data());
    collinear_fold_head_backward<float>(options.magnitude, plan.fold(), t.ptr(b, n, g), dtbar.data(), t.size(3),
                                        dt.ptr(b, n, g));
  });
  dt_copy.store();
}

void key_backward(Context&, const ops::CollinearOptions& options, const ops::CollinearKeyBackward& a) {
  const Plan plan(options, a.rows, a.dk_eff.size(3));
  const auto dk_eff = a.dk_eff.view<float, 4>();
  const auto dtbar = a.dtbar.view<float, 4>();
  const RowAccess rows = row_access(a.rows);
  for_each_head(a.dk_eff, [&](int64_t b, int64_t n, int64_t g) {
    tbar_head_backward(plan, dk_eff.ptr(b, n, g), rows.cos_at(b, n), rows.sin_at(b, n), dtbar.ptr(b, n, g));
  });
}

void fold_backward(Context&, const ops::CollinearOptions& options, const ops::CollinearFoldBackward& a) {
  const Plan plan(options, a.R, ops::effective_width(options, a.dtbar.size(3)));
  const FloatInput t_copy(a.t);
  const FloatOutput dt_copy(a.dt);
  const auto t = t_copy.ref().view<float, 4>(), dtbar = a.dtbar.view<float, 4>();
  const auto dt = dt_copy.ref().view<float, 4>();
  for_each_head(a.t, [&](int64_t b, int64_t n, int64_t g) {
    collinear_fold_head_backward<float>(options.magnitude, plan.fold(), t.ptr(b, n, g), dtbar.ptr(b, n, g), t.size(3),
                                        dt.ptr(b, n, g));
  });
  dt_copy.store();
}

void forward(Context& context, const ops::CollinearOptions& options, const ops::CollinearForward& a) {
  query(context, options, {.rows = a.rows, .q = a.q, .q_eff = a.q_eff});
  key_from_t(options, a);
}
void backward(Context&, const ops::CollinearOptions& options, const ops::CollinearBackward& a) {
  query_backward(options, a);
  key_from_t_backward(options, a);
}

}  // namespace

const ops::CollinearImpl collinear_row{.name = "ref",
                                       .run = {forward, backward, fold, query, key, key_backward, fold_backward}};

}  // namespace coca::ref

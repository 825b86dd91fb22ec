// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/collinear.h"

#include "coca/ops/check.h"
#include "coca/ops/run.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "collinear";

// The widths of a call, from E, that of q_eff and k_eff, and what was checked of them.
struct Widths {
  int64_t R, E, planes, stored, query;
  bool official_partial;
};
Widths widths_of(const CollinearOptions& o, int64_t R, int64_t E) {
  COCA_CHECK(o.content >= 0 && o.content <= E && (E - o.content) % 2 == 0,
             "[collinear] heads of {} numbers with {} content channels; expected an even number of other numbers", E,
             o.content);
  const int64_t planes = planes_of(o, E);
  COCA_CHECK(R >= 0 && R % 2 == 0 && R <= 2 * planes,
             "[collinear] rotary dims {} must be even and at most {}, two for each of {} planes", R, 2 * planes,
             planes);
  const bool official_partial = o.fold == Fold::kOfficial && R != E;  // with R = E the two folds are the same
  COCA_CHECK(
      !official_partial || (o.kind == Collinear::kSlack && o.magnitude == Magnitude::kRelu && o.content == 0),
      "[collinear] the official fold with rotary dims {} < {} supports only slack, with ReLU and without content "
      "channels",
      R, E);
  return {R, E, planes, stored_width(o, E), query_width(o, E), official_partial};
}
Widths widths_of(const CollinearOptions& o, const RopeRows& rows, TensorRef effective) {
  return widths_of(o, 2 * rows.cos.size(2), effective.size(3));
}

// Tensors without heads may have any width: calls that are for keys or for queries alone give such.
int64_t width_of(TensorRef x, int64_t wanted) { return x.size(2) == 0 ? x.size(3) : wanted; }

// x has type `type` and shape [B, N, heads, width], where B, N and heads are those of `like`.
void check_side(const Site& at, std::string_view name, TensorRef x, TensorRef like, int64_t width, DType type) {
  check_dtype(at, name, x, type);
  check_heads(at, name, x, {like.size(0), like.size(1), like.size(2), width});
}

// t has one number for each plane and content channel, or with two members E numbers that fold by pairs.
void check_t(const Site& at, const CollinearOptions& o, const Widths& w, TensorRef t, TensorRef like) {
  check_given(at, "t", t);
  COCA_CHECK(t.rank() == 4, "[collinear] t has shape {}; expected [B, N, G, D] or [B, N, G, D/2]", t.shape.text());
  const bool whole = form_info(o.kind).members == 2 && t.size(3) != w.stored;
  check_heads(at, "t", t, {like.size(0), like.size(1), t.size(2), width_of(t, whole ? w.E : w.stored)});
}

void check_rank4(const Site& at, std::string_view name, TensorRef x) {
  check_given(at, name, x);
  COCA_CHECK(x.rank() == 4, "[collinear] {} has shape {}; expected four dimensions", name, x.shape.text());
}

Widths check_query(const Site& at, const CollinearOptions& o, const RopeRows& rows, TensorRef q, TensorRef q_eff,
                   std::string_view effective_name) {
  check_rank4(at, "q", q);
  check_rank4(at, effective_name, q_eff);
  check_rows(at, rows, q_eff);
  check_dtype(at, "q", q, kF32OrBF16);
  const Widths w = widths_of(o, rows, q_eff);
  check_side(at, effective_name, q_eff, q, w.E, q.dtype);
  check_side(at, "q", q, q, width_of(q, w.query), q.dtype);
  return w;
}

void check_key_rows(const Site& at, const RopeRows& rows, const RopeRows& key_rows) {
  if (key_rows.cos.empty()) return;
  COCA_CHECK(key_rows.cos.shape == rows.cos.shape && key_rows.sin.shape == rows.cos.shape,
             "[collinear] key cos {} and sin {} must have the shape of cos {}", key_rows.cos.shape.text(),
             key_rows.sin.shape.text(), rows.cos.shape.text());
  check_dtype(at, "key cos", key_rows.cos, DType::kF32);
  check_dtype(at, "key sin", key_rows.sin, DType::kF32);
}

Widths check_fold(const Site& at, const CollinearOptions& o, int64_t R, TensorRef t, TensorRef tbar) {
  check_rank4(at, "tbar", tbar);
  check_heads(at, "tbar", tbar, tbar.shape);
  check_dtype(at, "t", t, kF32OrBF16);
  COCA_CHECK(tbar.size(3) >= o.content, "[collinear] tbar has {} numbers; expected at least the {} content channels",
             tbar.size(3), o.content);
  const Widths w = widths_of(o, R, effective_width(o, tbar.size(3)));
  check_t(at, o, w, t, tbar);
  COCA_CHECK(t.size(2) == tbar.size(2), "[collinear] t has {} heads; expected {}, those of tbar", t.size(2),
             tbar.size(2));
  return w;
}

CollinearCase case_of(const Widths& w, TensorRef x) { return {x.dtype, w.official_partial}; }

}  // namespace

void collinear_fold(Context& context, const CollinearOptions& options, const CollinearFold& a) {
  const Widths w = check_fold(Site(kOp, context), options, a.R, a.t, a.tbar);
  run<CollinearImpl>(context, case_of(w, a.t), &CollinearFunctions::fold, options, a);
}

void collinear_query(Context& context, const CollinearOptions& options, const CollinearQuery& a) {
  const Widths w = check_query(Site(kOp, context), options, a.rows, a.q, a.q_eff, "q_eff");
  run<CollinearImpl>(context, case_of(w, a.q), &CollinearFunctions::query, options, a);
}

void collinear_key(Context& context, const CollinearOptions& options, const CollinearKey& a) {
  const Site at(kOp, context);
  check_rank4(at, "tbar", a.tbar);
  check_rows(at, a.rows, a.k_eff);
  const Widths w = widths_of(options, a.rows, a.k_eff);
  check_dtype(at, "tbar", a.tbar, kF32OrBF16);
  check_dtype(at, "k_eff", a.k_eff, kF32OrBF16);
  check_side(at, "tbar", a.tbar, a.k_eff, w.stored, a.tbar.dtype);
  check_heads(at, "k_eff", a.k_eff, a.k_eff.shape);
  run<CollinearImpl>(context, case_of(w, a.k_eff), &CollinearFunctions::key, options, a);
}

void collinear_key_backward(Context& context, const CollinearOptions& options, const CollinearKeyBackward& a) {
  const Site at(kOp, context);
  check_rank4(at, "dk_eff", a.dk_eff);
  check_rows(at, a.rows, a.dk_eff);
  const Widths w = widths_of(options, a.rows, a.dk_eff);
  check_side(at, "dk_eff", a.dk_eff, a.dk_eff, w.E, DType::kF32);
  check_side(at, "dtbar", a.dtbar, a.dk_eff, w.stored, DType::kF32);
  run<CollinearImpl>(context, case_of(w, a.dk_eff), &CollinearFunctions::key_backward, options, a);
}

void collinear_fold_backward(Context& context, const CollinearOptions& options, const CollinearFoldBackward& a) {
  const Site at(kOp, context);
  const Widths w = check_fold(at, options, a.R, a.t, a.dtbar);
  check_side(at, "dtbar", a.dtbar, a.dtbar, w.stored, DType::kF32);
  check_side(at, "dt", a.dt, a.t, a.t.size(3), a.t.dtype);
  run<CollinearImpl>(context, case_of(w, a.t), &CollinearFunctions::fold_backward, options, a);
}

void collinear_forward(Context& context, const CollinearOptions& options, const CollinearForward& a) {
  const Site at(kOp, context);
  const Widths w = check_query(at, options, a.rows, a.q, a.q_eff, "q_eff");
  check_key_rows(at, a.rows, a.key_rows);
  check_dtype(at, "t", a.t, a.q.dtype);
  check_t(at, options, w, a.t, a.q);
  check_side(at, "k_eff", a.k_eff, a.t, w.E, a.t.dtype);
  run<CollinearImpl>(context, case_of(w, a.q), &CollinearFunctions::forward, options, a);
}

void collinear_backward(Context& context, const CollinearOptions& options, const CollinearBackward& a) {
  const Site at(kOp, context);
  const Widths w = check_query(at, options, a.rows, a.q, a.dq_eff, "dq_eff");
  check_key_rows(at, a.rows, a.key_rows);
  check_dtype(at, "t", a.t, a.q.dtype);
  check_t(at, options, w, a.t, a.q);
  check_side(at, "dk_eff", a.dk_eff, a.t, w.E, a.q.dtype);
  check_side(at, "dq", a.dq, a.q, a.q.size(3), a.q.dtype);
  check_side(at, "dt", a.dt, a.t, a.t.size(3), a.q.dtype);
  run<CollinearImpl>(context, case_of(w, a.q), &CollinearFunctions::backward, options, a);
}

}  // namespace coca::ops

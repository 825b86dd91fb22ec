// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/collinear.h"

#include "coca/ops/check.h"
#include "coca/ops/run.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "collinear";

// With R = D the two folds are the same.
bool official_partial(const CollinearOptions& options, int64_t R, int64_t D) {
  if (options.fold != Fold::kOfficial || R == D) return false;
  COCA_CHECK(options.kind == Collinear::kSlack,
             "[collinear] the official fold with rotary dims {} < {} supports only slack", R, D);
  return true;
}

void check_even(int64_t D) { COCA_CHECK(D % 2 == 0, "[collinear] the head dim {} must be even", D); }

// t has the shape [B, N, G, D], or half the width if the projection has folded it.
void check_t(const Site& at, TensorRef t, Dims shape) {
  COCA_CHECK(t.rank() == 4, "[collinear] t has shape {}; expected [B, N, G, D] or [B, N, G, D/2]", t.shape.text());
  if (2 * t.size(3) == shape[3]) shape[3] /= 2;
  check_heads(at, "t", t, shape);
}

void check_pair(const Site& at, const RopeRows& rows, const RopeRows& key_rows, TensorRef q, TensorRef t) {
  check_rows(at, rows, q);
  COCA_CHECK(key_rows.cos.empty() || (key_rows.cos.shape == rows.cos.shape && key_rows.sin.shape == rows.cos.shape),
             "[collinear] key cos {} and sin {} must have the shape of cos {}", key_rows.cos.shape.text(),
             key_rows.sin.shape.text(), rows.cos.shape.text());
  if (!key_rows.cos.empty()) {
    check_dtype(at, "key cos", key_rows.cos, DType::kF32);
    check_dtype(at, "key sin", key_rows.sin, DType::kF32);
  }
  check_dtype(at, "q", q, kF32OrBF16);
  check_dtype(at, "t", t, q.dtype);
  check_even(q.size(3));
  check_t(at, t, {q.size(0), q.size(1), t.rank() == 4 ? t.size(2) : 0, q.size(3)});
}

// Of k_eff: as t, in the width of q.
Dims key_shape(TensorRef t, TensorRef q) { return {t.size(0), t.size(1), t.size(2), q.size(3)}; }

// x has type `type` and shape [B, N, heads, D].
void check_side(const Site& at, std::string_view name, TensorRef x, const Dims& shape, DType type) {
  check_dtype(at, name, x, type);
  check_heads(at, name, x, shape);
}

// The head dim, by the folded side: [B, N, G, D/2].
int64_t check_fold(const Site& at, int64_t R, TensorRef t, TensorRef tbar) {
  COCA_CHECK(tbar.rank() == 4, "[collinear] tbar has shape {}; expected [B, N, G, D/2]", tbar.shape.text());
  const int64_t D = 2 * tbar.size(3);
  check_dtype(at, "t", t, kF32OrBF16);
  check_t(at, t, {tbar.size(0), tbar.size(1), tbar.size(2), D});
  COCA_CHECK(R >= 0 && R <= D && R % 2 == 0, "[collinear] rotary dims {} must be even and at most {}", R, D);
  return D;
}

CollinearCase case_of(const CollinearOptions& options, int64_t R, int64_t D, DType type) {
  return {type, official_partial(options, R, D)};
}
CollinearCase case_of(const CollinearOptions& options, const RopeRows& rows, TensorRef x) {
  return case_of(options, 2 * rows.cos.size(2), x.size(3), x.dtype);
}

}  // namespace

void collinear_fold(Context& context, const CollinearOptions& options, const CollinearFold& a) {
  const Site at(kOp, context);
  const int64_t D = check_fold(at, a.R, a.t, a.tbar);
  check_dtype(at, "tbar", a.tbar, kF32OrBF16);
  check_heads(at, "tbar", a.tbar, a.tbar.shape);
  run<CollinearImpl>(context, case_of(options, a.R, D, a.t.dtype), &CollinearFunctions::fold, options, a);
}

void collinear_query(Context& context, const CollinearOptions& options, const CollinearQuery& a) {
  const Site at(kOp, context);
  check_rows(at, a.rows, a.q);
  check_dtype(at, "q", a.q, kF32OrBF16);
  check_side(at, "q_eff", a.q_eff, a.q.shape, a.q.dtype);
  check_even(a.q.size(3));
  run<CollinearImpl>(context, case_of(options, a.rows, a.q), &CollinearFunctions::query, options, a);
}

void collinear_key(Context& context, const CollinearOptions& options, const CollinearKey& a) {
  const Site at(kOp, context);
  COCA_CHECK(a.tbar.rank() == 4, "[collinear] tbar has shape {}; expected [B, S, G, D/2]", a.tbar.shape.text());
  const int64_t D = 2 * a.tbar.size(3);
  check_dtype(at, "tbar", a.tbar, kF32OrBF16);
  check_heads(at, "tbar", a.tbar, a.tbar.shape);
  check_rows(at, a.rows, a.k_eff);
  check_dtype(at, "k_eff", a.k_eff, kF32OrBF16);
  check_heads(at, "k_eff", a.k_eff, {a.tbar.size(0), a.tbar.size(1), a.tbar.size(2), D});
  run<CollinearImpl>(context, case_of(options, a.rows, a.k_eff), &CollinearFunctions::key, options, a);
}

void collinear_key_backward(Context& context, const CollinearOptions& options, const CollinearKeyBackward& a) {
  const Site at(kOp, context);
  check_rows(at, a.rows, a.dk_eff);
  const int64_t D = a.dk_eff.size(3);
  check_even(D);
  check_side(at, "dk_eff", a.dk_eff, a.dk_eff.shape, DType::kF32);
  check_side(at, "dtbar", a.dtbar, {a.dk_eff.size(0), a.dk_eff.size(1), a.dk_eff.size(2), D / 2}, DType::kF32);
  run<CollinearImpl>(context, case_of(options, a.rows, a.dk_eff), &CollinearFunctions::key_backward, options, a);
}

void collinear_fold_backward(Context& context, const CollinearOptions& options, const CollinearFoldBackward& a) {
  const Site at(kOp, context);
  const int64_t D = check_fold(at, a.R, a.t, a.dtbar);
  check_side(at, "dtbar", a.dtbar, a.dtbar.shape, DType::kF32);
  check_side(at, "dt", a.dt, a.t.shape, a.t.dtype);
  run<CollinearImpl>(context, case_of(options, a.R, D, a.t.dtype), &CollinearFunctions::fold_backward, options, a);
}

void collinear_forward(Context& context, const CollinearOptions& options, const CollinearForward& a) {
  const Site at(kOp, context);
  check_pair(at, a.rows, a.key_rows, a.q, a.t);
  check_side(at, "q_eff", a.q_eff, a.q.shape, a.q.dtype);
  check_side(at, "k_eff", a.k_eff, key_shape(a.t, a.q), a.t.dtype);
  run<CollinearImpl>(context, case_of(options, a.rows, a.q), &CollinearFunctions::forward, options, a);
}

void collinear_backward(Context& context, const CollinearOptions& options, const CollinearBackward& a) {
  const Site at(kOp, context);
  check_pair(at, a.rows, a.key_rows, a.q, a.t);
  check_side(at, "dq_eff", a.dq_eff, a.q.shape, a.q.dtype);
  check_side(at, "dk_eff", a.dk_eff, key_shape(a.t, a.q), a.q.dtype);
  check_side(at, "dq", a.dq, a.q.shape, a.q.dtype);
  check_side(at, "dt", a.dt, a.t.shape, a.q.dtype);
  run<CollinearImpl>(context, case_of(options, a.rows, a.q), &CollinearFunctions::backward, options, a);
}

}  // namespace coca::ops

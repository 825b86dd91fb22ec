// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/collinear.h"

#include <algorithm>
#include <vector>

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/rope.h"
#include "coca/kernels/ref/collinear.h"
#include "coca/ops/check.h"
#include "coca/ops/float_types.h"
#include "coca/ops/impl.h"
#include "coca/ops/rope_check.h"

namespace coca::ops {

namespace {

// With R = D the two folds are the same; only the real quirk needs the official routine (reference only: it serves
// old checkpoints, not new work).
bool official_quirk(const CollinearOptions& options, int64_t R, int64_t D) {
  if (options.fold != Fold::kOfficial || R == D) return false;
  COCA_CHECK(options.kind == Collinear::kSlack, "[collinear] the official fold with rotary dims {} < {} is slack only", R,
             D);
  return true;
}

void check_even(int64_t D) { COCA_CHECK(D % 2 == 0, "[collinear] the head dim {} must be even", D); }

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

// t has the shape [B, N, G, D], or half the width where the projection has folded it.
void check_t(TensorRef t, Dims shape) {
  COCA_CHECK(t.rank() == 4, "[collinear] t has shape {}; expected [B, N, G, D] or [B, N, G, D/2]", t.shape.text());
  if (2 * t.size(3) == shape[3]) shape[3] /= 2;
  check_heads("collinear", "t", t, shape);
}

void check_pair(const RopeRows& rows, const RopeRows& key_rows, TensorRef q, TensorRef t) {
  check_rows("collinear", rows, q);
  COCA_CHECK(key_rows.cos.empty() || (key_rows.cos.shape == rows.cos.shape && key_rows.sin.shape == rows.cos.shape),
             "[collinear] key cos {} and sin {} must have the shape of cos {}", key_rows.cos.shape.text(), key_rows.sin.shape.text(),
             rows.cos.shape.text());
  check_dtype("collinear", "q", q, kF32OrBF16);
  check_dtype("collinear", "t", t, q.dtype);
  check_even(q.size(3));
  check_t(t, {q.size(0), q.size(1), t.rank() == 4 ? t.size(2) : 0, q.size(3)});
}

// Of k_eff: as t, in the width of q.
Dims key_shape(TensorRef t, TensorRef q) { return {t.size(0), t.size(1), t.size(2), q.size(3)}; }

template <typename Body>
void over_rows(TensorRef x, const Body& body) {
  parallel_blocks(x.size(0) * x.size(1), row_grain(x), body);
}

// x has type `type` and shape [B, N, heads, D].
void check_side(std::string_view name, TensorRef x, const Dims& shape, DType type) {
  check_dtype("collinear", name, x, type);
  check_heads("collinear", name, x, shape);
}

enum class Path { kCpu, kRef, kOfficial };  // kOfficial runs the reference's routine for the quirk

Path choose_path(const Context& context, const CollinearOptions& options, int64_t R, int64_t D) {
  if (official_quirk(options, R, D)) return Path::kOfficial;
  return use_ref(context, "collinear") ? Path::kRef : Path::kCpu;
}

RowAccess row_access(const RopeRows& rows) { return {rows.cos.view<float, 3>(), rows.sin.view<float, 3>()}; }

RopeRows rows_of_keys(const RopeRows& rows, const RopeRows& key_rows) { return key_rows.cos.empty() ? rows : key_rows; }

// What the rotated ops share: by which code, which form, and the angles as the kernels take them.
struct Plan {
  Path path;
  int kind;
  cpu::RopeTables tables;
};
Plan plan_of(const Context& context, const CollinearOptions& options, const RopeRows& rows, int64_t D) {
  return {choose_path(context, options, 2 * rows.cos.size(2), D), static_cast<int>(options.kind),
          {rows.cos.view<float, 3>(), rows.sin.view<float, 3>()}};
}

// The rotary dims whose pairs fold: the official routine's pairs are (j, j + D/2).
int64_t fold_dims(Path path, int64_t R, int64_t D) { return path == Path::kOfficial ? D : R; }

void fold_ref(Path path, const CollinearFold& a) {
  const int64_t D = 2 * a.tbar.size(3), R = fold_dims(path, a.R, D);
  const FloatInput t_copy(a.t);
  const FloatOutput tbar_copy(a.tbar);
  const auto t = t_copy.ref().view<float, 4>();
  const auto tbar = tbar_copy.ref().view<float, 4>();
  for_each_head(a.t, [&](int64_t b, int64_t n, int64_t g) {
    ref::collinear_fold_head(t.ptr(b, n, g), t.size(3), R, D, tbar.ptr(b, n, g));
  });
  tbar_copy.store();
}

void query_ref(const Plan& plan, const CollinearQuery& a) {
  const int64_t D = a.q.size(3), R = 2 * a.rows.cos.size(2);
  const FloatInput q_copy(a.q);
  const FloatOutput q_eff_copy(a.q_eff);
  const auto q = q_copy.ref().view<float, 4>();
  const auto q_eff = q_eff_copy.ref().view<float, 4>();
  const RowAccess rows = row_access(a.rows);
  for_each_head(a.q, [&](int64_t b, int64_t n, int64_t h) {
    if (plan.path == Path::kOfficial)
      ref::collinear_official_head<float>(q.ptr(b, n, h), nullptr, R, D, rows.cos_at(b, n), rows.sin_at(b, n),
                                          q_eff.ptr(b, n, h), nullptr);
    else
      ref::collinear_query_head(plan.kind, q.ptr(b, n, h), R, D, rows.cos_at(b, n), rows.sin_at(b, n),
                                q_eff.ptr(b, n, h));
  });
  q_eff_copy.store();
}

// k_eff [D] of tbar [D/2].
template <typename Cos, typename Sin>
void key_head(const Plan& plan, const float* tbar, int64_t R, int64_t D, Cos cos, Sin sin, float* k_eff) {
  if (plan.path != Path::kOfficial) return ref::collinear_key_head(plan.kind, tbar, R, D, cos, sin, k_eff);
  std::vector<float> full(static_cast<size_t>(D));  // folding [tbar, tbar] gives tbar back
  for (int64_t i = 0; i < D; ++i) full[static_cast<size_t>(i)] = tbar[i % (D / 2)];
  ref::collinear_official_head<float>(nullptr, full.data(), R, D, cos, sin, nullptr, k_eff);
}

// dtbar [D/2] += from dk_eff [D].
template <typename Cos, typename Sin>
void tbar_head_backward(const Plan& plan, const float* dk_eff, int64_t R, int64_t D, Cos cos, Sin sin, float* dtbar) {
  if (plan.path == Path::kOfficial)
    ref::collinear_official_tbar_head_backward(dk_eff, R, D, cos, sin, dtbar);
  else
    ref::collinear_tbar_head_backward(plan.kind, dk_eff, R, D, cos, sin, dtbar);
}

void key_ref(const Plan& plan, const CollinearKey& a) {
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
  RopeRows rows;
  TensorRef t;
  MutTensorRef k_eff;
};

void key_from_t_ref(const Plan& plan, const KeyFromT& a) {
  const int64_t D = a.k_eff.size(3), R = 2 * a.rows.cos.size(2);
  const FloatInput t_copy(a.t);
  const FloatOutput k_eff_copy(a.k_eff);
  const auto t = t_copy.ref().view<float, 4>();
  const auto k_eff = k_eff_copy.ref().view<float, 4>();
  const RowAccess rows = row_access(a.rows);
  std::vector<float> tbar(static_cast<size_t>(D / 2));
  for_each_head(a.t, [&](int64_t b, int64_t n, int64_t g) {
    ref::collinear_fold_head(t.ptr(b, n, g), t.size(3), fold_dims(plan.path, R, D), D, tbar.data());
    key_head(plan, tbar.data(), R, D, rows.cos_at(b, n), rows.sin_at(b, n), k_eff.ptr(b, n, g));
  });
  k_eff_copy.store();
}

void backward_ref(const Plan& plan, const CollinearBackward& a) {
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
    if (plan.path == Path::kOfficial)
      ref::collinear_official_head_backward<float>(q.ptr(b, n, h), zeros.data(), dq_eff.ptr(b, n, h), zeros.data(), R,
                                                   D, cos, sin, dq.ptr(b, n, h), sink.data(), scratch.data());
    else
      ref::collinear_query_head_backward<float>(plan.kind, q.ptr(b, n, h), dq_eff.ptr(b, n, h), R, D, cos, sin,
                                                dq.ptr(b, n, h));
  });
  std::vector<float> dtbar(static_cast<size_t>(D / 2));
  for_each_head(a.t, [&](int64_t b, int64_t n, int64_t g) {
    std::fill(dtbar.begin(), dtbar.end(), 0.0f);
    tbar_head_backward(plan, dk_eff.ptr(b, n, g), R, D, key_rows.cos_at(b, n), key_rows.sin_at(b, n), dtbar.data());
    ref::collinear_fold_head_backward(t.ptr(b, n, g), dtbar.data(), t.size(3), fold_dims(plan.path, R, D), D,
                                      dt.ptr(b, n, g));
  });
  dq_copy.store();
  dt_copy.store();
}

void tbar_backward_ref(const Plan& plan, const CollinearKeyBackward& a) {
  const int64_t D = a.dk_eff.size(3), R = 2 * a.rows.cos.size(2);
  const auto dk_eff = a.dk_eff.view<float, 4>();
  const auto dtbar = a.dtbar.view<float, 4>();
  const RowAccess rows = row_access(a.rows);
  for_each_head(a.dk_eff, [&](int64_t b, int64_t n, int64_t g) {
    tbar_head_backward(plan, dk_eff.ptr(b, n, g), R, D, rows.cos_at(b, n), rows.sin_at(b, n), dtbar.ptr(b, n, g));
  });
}

void fold_backward_ref(Path path, const CollinearFoldBackward& a) {
  const int64_t D = 2 * a.dtbar.size(3), R = fold_dims(path, a.R, D);
  const FloatInput t_copy(a.t);
  const FloatOutput dt_copy(a.dt);
  const auto t = t_copy.ref().view<float, 4>(), dtbar = a.dtbar.view<float, 4>();
  const auto dt = dt_copy.ref().view<float, 4>();
  for_each_head(a.t, [&](int64_t b, int64_t n, int64_t g) {
    ref::collinear_fold_head_backward<float>(t.ptr(b, n, g), dtbar.ptr(b, n, g), t.size(3), R, D, dt.ptr(b, n, g));
  });
  dt_copy.store();
}

void query_by(const Plan& plan, const CollinearQuery& a) {
  if (plan.path != Path::kCpu) return query_ref(plan, a);
  with_float_type(a.q.dtype, [&](auto zero) {
    const auto q = a.q.view<decltype(zero), 4>();
    const auto q_eff = a.q_eff.view<decltype(zero), 4>();
    over_rows(a.q,
              [&](int64_t r0, int64_t r1) { cpu::collinear_query_rows(plan.kind, plan.tables, q, q_eff, r0, r1); });
  });
}

void key_from_t_by(const Plan& plan, const KeyFromT& a) {
  if (plan.path != Path::kCpu) return key_from_t_ref(plan, a);
  with_float_type(a.t.dtype, [&](auto zero) {
    const auto t = a.t.view<decltype(zero), 4>();
    const auto k_eff = a.k_eff.view<decltype(zero), 4>();
    over_rows(a.t,
              [&](int64_t r0, int64_t r1) { cpu::collinear_key_rows_from_t(plan.kind, plan.tables, t, k_eff, r0, r1); });
  });
}

template <typename T>
void backward_as(const Plan& plan, const cpu::RopeTables& key_tables, const CollinearBackward& a) {
  const auto q = a.q.view<T, 4>(), t = a.t.view<T, 4>();
  const auto dq_eff = a.dq_eff.view<T, 4>(), dk_eff = a.dk_eff.view<T, 4>();
  const auto dq = a.dq.view<T, 4>(), dt = a.dt.view<T, 4>();
  over_rows(a.q, [&](int64_t r0, int64_t r1) {
    cpu::collinear_query_rows_backward(plan.kind, plan.tables, q, dq_eff, dq, r0, r1);
  });
  over_rows(a.t, [&](int64_t r0, int64_t r1) {
    cpu::collinear_key_rows_backward(plan.kind, key_tables, t, dk_eff, dt, r0, r1);
  });
}

}  // namespace

namespace {

// The head dim, by the folded side: [B, N, G, D/2].
int64_t check_fold(int64_t R, TensorRef t, TensorRef tbar) {
  COCA_CHECK(tbar.rank() == 4, "[collinear] tbar has shape {}; expected [B, N, G, D/2]", tbar.shape.text());
  const int64_t D = 2 * tbar.size(3);
  check_dtype("collinear", "t", t, kF32OrBF16);
  check_t(t, {tbar.size(0), tbar.size(1), tbar.size(2), D});
  COCA_CHECK(R >= 0 && R <= D && R % 2 == 0, "[collinear] rotary dims {} must be even and at most {}", R, D);
  return D;
}

}  // namespace

void collinear_fold(Context& context, const CollinearOptions& options, const CollinearFold& a) {
  const int64_t D = check_fold(a.R, a.t, a.tbar);
  check_dtype("collinear", "tbar", a.tbar, kF32OrBF16);
  check_heads("collinear", "tbar", a.tbar, a.tbar.shape);
  const Path path = choose_path(context, options, a.R, D);
  if (path != Path::kCpu) return fold_ref(path, a);
  with_float_type(a.t.dtype, [&](auto t_zero) {
    with_float_type(a.tbar.dtype, [&](auto tbar_zero) {
      const auto t = a.t.view<decltype(t_zero), 4>();
      const auto tbar = a.tbar.view<decltype(tbar_zero), 4>();
      over_rows(a.t, [&](int64_t r0, int64_t r1) { cpu::collinear_fold_rows(a.R, t, tbar, r0, r1); });
    });
  });
}

void collinear_query(Context& context, const CollinearOptions& options, const CollinearQuery& a) {
  check_rows("collinear", a.rows, a.q);
  check_dtype("collinear", "q", a.q, kF32OrBF16);
  check_side("q_eff", a.q_eff, a.q.shape, a.q.dtype);
  check_even(a.q.size(3));
  query_by(plan_of(context, options, a.rows, a.q.size(3)), a);
}

void collinear_key(Context& context, const CollinearOptions& options, const CollinearKey& a) {
  COCA_CHECK(a.tbar.rank() == 4, "[collinear] tbar has shape {}; expected [B, S, G, D/2]", a.tbar.shape.text());
  const int64_t D = 2 * a.tbar.size(3);
  check_dtype("collinear", "tbar", a.tbar, kF32OrBF16);
  check_heads("collinear", "tbar", a.tbar, a.tbar.shape);
  check_rows("collinear", a.rows, a.k_eff);
  check_dtype("collinear", "k_eff", a.k_eff, kF32OrBF16);
  check_heads("collinear", "k_eff", a.k_eff, {a.tbar.size(0), a.tbar.size(1), a.tbar.size(2), D});
  const Plan plan = plan_of(context, options, a.rows, D);
  if (plan.path != Path::kCpu) return key_ref(plan, a);
  with_float_type(a.tbar.dtype, [&](auto tbar_zero) {
    with_float_type(a.k_eff.dtype, [&](auto key_zero) {
      const auto tbar = a.tbar.view<decltype(tbar_zero), 4>();
      const auto k_eff = a.k_eff.view<decltype(key_zero), 4>();
      over_rows(a.k_eff, [&](int64_t r0, int64_t r1) {
        cpu::collinear_key_rows(plan.kind, plan.tables, tbar, k_eff, r0, r1);
      });
    });
  });
}

void collinear_key_backward(Context& context, const CollinearOptions& options, const CollinearKeyBackward& a) {
  check_rows("collinear", a.rows, a.dk_eff);
  const int64_t D = a.dk_eff.size(3);
  check_even(D);
  check_side("dk_eff", a.dk_eff, a.dk_eff.shape, DType::kF32);
  check_side("dtbar", a.dtbar, {a.dk_eff.size(0), a.dk_eff.size(1), a.dk_eff.size(2), D / 2}, DType::kF32);
  const Plan plan = plan_of(context, options, a.rows, D);
  if (plan.path != Path::kCpu) return tbar_backward_ref(plan, a);
  const auto dk_eff = a.dk_eff.view<float, 4>();
  const auto dtbar = a.dtbar.view<float, 4>();
  over_rows(a.dk_eff, [&](int64_t r0, int64_t r1) { cpu::collinear_tbar_rows_backward(plan.kind, plan.tables, dk_eff, dtbar, r0, r1); });
}

void collinear_fold_backward(Context& context, const CollinearOptions& options, const CollinearFoldBackward& a) {
  const int64_t D = check_fold(a.R, a.t, a.dtbar);
  check_side("dtbar", a.dtbar, a.dtbar.shape, DType::kF32);
  check_side("dt", a.dt, a.t.shape, a.t.dtype);
  const Path path = choose_path(context, options, a.R, D);
  if (path != Path::kCpu) return fold_backward_ref(path, a);
  with_float_type(a.t.dtype, [&](auto zero) {
    const auto t = a.t.view<decltype(zero), 4>();
    const auto dt = a.dt.view<decltype(zero), 4>();
    const auto dtbar = a.dtbar.view<float, 4>();
    over_rows(a.t, [&](int64_t r0, int64_t r1) { cpu::collinear_fold_rows_backward(a.R, t, dtbar, dt, r0, r1); });
  });
}

void collinear_forward(Context& context, const CollinearOptions& options, const CollinearForward& a) {
  check_pair(a.rows, a.key_rows, a.q, a.t);
  check_side("q_eff", a.q_eff, a.q.shape, a.q.dtype);
  check_side("k_eff", a.k_eff, key_shape(a.t, a.q), a.t.dtype);
  const RopeRows keys = rows_of_keys(a.rows, a.key_rows);
  query_by(plan_of(context, options, a.rows, a.q.size(3)), {.rows = a.rows, .q = a.q, .q_eff = a.q_eff});
  key_from_t_by(plan_of(context, options, keys, a.q.size(3)), {.rows = keys, .t = a.t, .k_eff = a.k_eff});
}

void collinear_backward(Context& context, const CollinearOptions& options, const CollinearBackward& a) {
  check_pair(a.rows, a.key_rows, a.q, a.t);
  check_side("dq_eff", a.dq_eff, a.q.shape, a.q.dtype);
  check_side("dk_eff", a.dk_eff, key_shape(a.t, a.q), a.q.dtype);
  check_side("dq", a.dq, a.q.shape, a.q.dtype);
  check_side("dt", a.dt, a.t.shape, a.q.dtype);
  const Plan plan = plan_of(context, options, a.rows, a.q.size(3));
  if (plan.path != Path::kCpu) return backward_ref(plan, a);
  const cpu::RopeTables key_tables = plan_of(context, options, rows_of_keys(a.rows, a.key_rows), a.q.size(3)).tables;
  with_float_type(a.q.dtype, [&](auto zero) { backward_as<decltype(zero)>(plan, key_tables, a); });
}

}  // namespace coca::ops

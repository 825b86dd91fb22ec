// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/collinear.h"

#include <vector>

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/rope.h"
#include "coca/kernels/ref/collinear.h"
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
  auto cos_at(int64_t b, int64_t n) const {
    return [p = cos.ptr(cos.size(0) == 1 ? 0 : b, n)](int64_t j) { return p[j]; };
  }
  auto sin_at(int64_t b, int64_t n) const {
    return [p = sin.ptr(sin.size(0) == 1 ? 0 : b, n)](int64_t j) { return p[j]; };
  }
};

template <typename Body>
void for_each_head(TensorRef x, const Body& body) {
  for (int64_t b = 0; b < x.size(0); ++b)
    for (int64_t n = 0; n < x.size(1); ++n)
      for (int64_t h = 0; h < x.size(2); ++h) body(b, n, h);
}

void check_pair(const RopeRows& rows, TensorRef q, TensorRef t) {
  check_rows("collinear", rows, q);
  COCA_CHECK(t.rank() == 4, "[collinear] t has shape {}; expected [B, N, G, D]", t.shape.text());
  check_heads("collinear", "t", t, {q.size(0), q.size(1), t.size(2), q.size(3)});
  check_even(q.size(3));
}

template <typename Body>
void over_rows(TensorRef x, const Body& body) {
  parallel_blocks(x.size(0) * x.size(1), row_grain(x), body);
}

}  // namespace

void collinear_fold(Context& context, const CollinearOptions& options, const CollinearFold& a) {
  COCA_CHECK(a.t.rank() == 4, "[collinear] t has shape {}; expected [B, N, G, D]", a.t.shape.text());
  const int64_t D = a.t.size(3);
  check_even(D);
  check_heads("collinear", "t", a.t, a.t.shape);
  check_heads("collinear", "tbar", a.tbar, {a.t.size(0), a.t.size(1), a.t.size(2), D / 2});
  COCA_CHECK(a.R >= 0 && a.R <= D && a.R % 2 == 0, "[collinear] rotary dims {} must be even and at most {}", a.R, D);
  const bool quirk = official_quirk(options, a.R, D);
  const auto t = a.t.view<float, 4>();
  const auto tbar = a.tbar.view<float, 4>();
  if (quirk || use_ref(context, "collinear", "cpu")) {
    for_each_head(a.t, [&](int64_t b, int64_t n, int64_t g) {
      ref::collinear_fold_head(t.ptr(b, n, g), quirk ? D : a.R, D, tbar.ptr(b, n, g));
    });
    return;
  }
  over_rows(a.t, [&](int64_t r0, int64_t r1) { cpu::collinear_fold_rows(a.R, t, tbar, r0, r1); });
}

void collinear_query(Context& context, const CollinearOptions& options, const CollinearQuery& a) {
  check_rows("collinear", a.rows, a.q);
  check_heads("collinear", "q_eff", a.q_eff, a.q.shape);
  const int64_t D = a.q.size(3), R = 2 * a.rows.cos.size(2);
  check_even(D);
  const bool quirk = official_quirk(options, R, D);
  const auto q = a.q.view<float, 4>();
  const auto q_eff = a.q_eff.view<float, 4>();
  const RowAccess rows{a.rows.cos.view<float, 3>(), a.rows.sin.view<float, 3>()};
  if (quirk || use_ref(context, "collinear", "cpu")) {
    for_each_head(a.q, [&](int64_t b, int64_t n, int64_t h) {
      if (quirk)
        ref::collinear_official_head<float>(q.ptr(b, n, h), nullptr, R, D, rows.cos_at(b, n), rows.sin_at(b, n),
                                            q_eff.ptr(b, n, h), nullptr);
      else
        ref::collinear_query_head(static_cast<int>(options.kind), q.ptr(b, n, h), R, D, rows.cos_at(b, n),
                                  rows.sin_at(b, n), q_eff.ptr(b, n, h));
    });
    return;
  }
  over_rows(a.q, [&](int64_t r0, int64_t r1) {
    cpu::collinear_query_rows(static_cast<int>(options.kind), {rows.cos, rows.sin}, q, q_eff, r0, r1);
  });
}

void collinear_key(Context& context, const CollinearOptions& options, const CollinearKey& a) {
  COCA_CHECK(a.tbar.rank() == 4, "[collinear] tbar has shape {}; expected [B, S, G, D/2]", a.tbar.shape.text());
  const int64_t D = 2 * a.tbar.size(3), R = 2 * a.rows.cos.size(2);
  check_heads("collinear", "tbar", a.tbar, a.tbar.shape);
  check_rows("collinear", a.rows, a.k_eff);
  check_heads("collinear", "k_eff", a.k_eff, {a.tbar.size(0), a.tbar.size(1), a.tbar.size(2), D});
  const bool quirk = official_quirk(options, R, D);
  const auto tbar = a.tbar.view<float, 4>();
  const auto k_eff = a.k_eff.view<float, 4>();
  const RowAccess rows{a.rows.cos.view<float, 3>(), a.rows.sin.view<float, 3>()};
  if (quirk || use_ref(context, "collinear", "cpu")) {
    std::vector<float> full(static_cast<size_t>(D));
    for_each_head(a.tbar, [&](int64_t b, int64_t n, int64_t g) {
      const float* half = tbar.ptr(b, n, g);
      if (quirk) {  // folding [tbar, tbar] again gives tbar back
        for (int64_t i = 0; i < D; ++i) full[static_cast<size_t>(i)] = half[i % (D / 2)];
        ref::collinear_official_head<float>(nullptr, full.data(), R, D, rows.cos_at(b, n), rows.sin_at(b, n), nullptr,
                                            k_eff.ptr(b, n, g));
      } else {
        ref::collinear_key_head(static_cast<int>(options.kind), half, R, D, rows.cos_at(b, n), rows.sin_at(b, n),
                                k_eff.ptr(b, n, g));
      }
    });
    return;
  }
  over_rows(a.k_eff, [&](int64_t r0, int64_t r1) {
    cpu::collinear_key_rows(static_cast<int>(options.kind), {rows.cos, rows.sin}, tbar, k_eff, r0, r1);
  });
}

void collinear_forward(Context& context, const CollinearOptions& options, const CollinearForward& a) {
  check_pair(a.rows, a.q, a.t);
  check_heads("collinear", "k_eff", a.k_eff, a.t.shape);
  const int64_t D = a.q.size(3), R = 2 * a.rows.cos.size(2);
  collinear_query(context, options, {.rows = a.rows, .q = a.q, .q_eff = a.q_eff});
  const auto t = a.t.view<float, 4>();
  const auto k_eff = a.k_eff.view<float, 4>();
  const RowAccess rows{a.rows.cos.view<float, 3>(), a.rows.sin.view<float, 3>()};
  const int kind = static_cast<int>(options.kind);
  const bool quirk = official_quirk(options, R, D);
  if (quirk || use_ref(context, "collinear", "cpu")) {
    std::vector<float> half(static_cast<size_t>(D / 2));
    for_each_head(a.t, [&](int64_t b, int64_t n, int64_t g) {
      if (quirk) {
        ref::collinear_official_head<float>(nullptr, t.ptr(b, n, g), R, D, rows.cos_at(b, n), rows.sin_at(b, n),
                                            nullptr, k_eff.ptr(b, n, g));
      } else {
        ref::collinear_fold_head(t.ptr(b, n, g), R, D, half.data());
        ref::collinear_key_head(kind, half.data(), R, D, rows.cos_at(b, n), rows.sin_at(b, n), k_eff.ptr(b, n, g));
      }
    });
    return;
  }
  over_rows(a.t, [&](int64_t r0, int64_t r1) {
    cpu::collinear_key_rows_from_t(kind, {rows.cos, rows.sin}, t, k_eff, r0, r1);
  });
}

void collinear_backward(Context& context, const CollinearOptions& options, const CollinearBackward& a) {
  check_pair(a.rows, a.q, a.t);
  check_heads("collinear", "dq_eff", a.dq_eff, a.q.shape);
  check_heads("collinear", "dk_eff", a.dk_eff, a.t.shape);
  check_heads("collinear", "dq", a.dq, a.q.shape);
  check_heads("collinear", "dt", a.dt, a.t.shape);
  const int64_t D = a.q.size(3), R = 2 * a.rows.cos.size(2);
  const auto q = a.q.view<float, 4>(), t = a.t.view<float, 4>();
  const auto dq_eff = a.dq_eff.view<float, 4>(), dk_eff = a.dk_eff.view<float, 4>();
  const auto dq = a.dq.view<float, 4>(), dt = a.dt.view<float, 4>();
  const RowAccess rows{a.rows.cos.view<float, 3>(), a.rows.sin.view<float, 3>()};
  const int kind = static_cast<int>(options.kind);
  if (official_quirk(options, R, D)) {
    // The two sides are independent; the routine does both at once, so the missing one gets zeros.
    std::vector<float> scratch(static_cast<size_t>(D)), zeros(static_cast<size_t>(D)), sink(static_cast<size_t>(D));
    for_each_head(a.q, [&](int64_t b, int64_t n, int64_t h) {
      ref::collinear_official_head_backward<float>(q.ptr(b, n, h), zeros.data(), dq_eff.ptr(b, n, h), zeros.data(), R, D,
                                                   rows.cos_at(b, n), rows.sin_at(b, n), dq.ptr(b, n, h), sink.data(),
                                                   scratch.data());
    });
    for_each_head(a.t, [&](int64_t b, int64_t n, int64_t g) {
      ref::collinear_official_head_backward<float>(zeros.data(), t.ptr(b, n, g), zeros.data(), dk_eff.ptr(b, n, g), R, D,
                                                   rows.cos_at(b, n), rows.sin_at(b, n), sink.data(), dt.ptr(b, n, g),
                                                   scratch.data());
    });
    return;
  }
  if (use_ref(context, "collinear", "cpu")) {
    for_each_head(a.q, [&](int64_t b, int64_t n, int64_t h) {
      ref::collinear_query_head_backward<float>(kind, q.ptr(b, n, h), dq_eff.ptr(b, n, h), R, D, rows.cos_at(b, n),
                                                rows.sin_at(b, n), dq.ptr(b, n, h));
    });
    for_each_head(a.t, [&](int64_t b, int64_t n, int64_t g) {
      ref::collinear_key_head_backward<float>(kind, t.ptr(b, n, g), dk_eff.ptr(b, n, g), R, D, rows.cos_at(b, n),
                                              rows.sin_at(b, n), dt.ptr(b, n, g));
    });
    return;
  }
  const cpu::RopeTables tables{rows.cos, rows.sin};
  over_rows(a.q, [&](int64_t r0, int64_t r1) {
    cpu::collinear_query_rows_backward(kind, tables, q, dq_eff, dq, r0, r1);
  });
  over_rows(a.t, [&](int64_t r0, int64_t r1) {
    cpu::collinear_key_rows_backward(kind, tables, t, dk_eff, dt, r0, r1);
  });
}

}  // namespace coca::ops

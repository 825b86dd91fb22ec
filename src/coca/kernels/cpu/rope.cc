// Each routine walks the pairs of a head in vectors and finishes with single lanes; the pair formula is written
// once as a template over the Highway tag. Math: docs/math/rope.md, docs/math/collinear.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/rope.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/rope.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "coca/kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// A run of `count` pairs: members at a + i and b + i, with cos and sin at i (null: angle zero).
struct PairRun {
  int64_t a, b, count;
  const float* cos;
  const float* sin;
};

template <class D>
HWY_INLINE hn::Vec<D> load_or(D d, const float* p, int64_t i, float otherwise) {
  return p ? hn::LoadU(d, p + i) : hn::Set(d, otherwise);
}

// The rotary run, and the run of dims that do not rotate (empty when R = D).
struct HeadRuns {
  PairRun rotary, rest;
};
HWY_INLINE HeadRuns head_runs(const RopeTables& tables, int64_t b, int64_t n, int64_t D) {
  const int64_t half = tables.cos.size(2), R = 2 * half, rest = (D - R) / 2;
  const int64_t tb = tables.cos.size(0) == 1 ? 0 : b;
  return {{0, half, half, tables.cos.ptr(tb, n), tables.sin.ptr(tb, n)}, {R, R + rest, rest, nullptr, nullptr}};
}

template <class Body>
HWY_INLINE void for_heads(const TensorView<const float, 4>& x, int64_t row0, int64_t row1, const Body& body) {
  for (int64_t row = row0; row < row1; ++row) {
    const int64_t b = row / x.size(1), n = row % x.size(1);
    for (int64_t h = 0; h < x.size(2); ++h) body(b, n, h);
  }
}

void rope(const RopeTables& tables, Turn turn, const TensorView<const float, 4>& x, const TensorView<float, 4>& y,
          int64_t row0, int64_t row1) {
  const int64_t half = tables.cos.size(2), D = x.size(3);
  for_heads(x, row0, row1, [&](int64_t b, int64_t n, int64_t h) HWY_ATTR {
    const float* in = x.ptr(b, n, h);
    float* out = y.ptr(b, n, h);
    const PairRun run = head_runs(tables, b, n, D).rotary;
    for_lanes(half, [&](auto d, int64_t i) HWY_ATTR {
      const auto c = hn::LoadU(d, run.cos + i);
      const auto s0 = hn::LoadU(d, run.sin + i);
      const auto s = turn == Turn::kForward ? s0 : hn::Neg(s0);
      const auto a = hn::LoadU(d, in + i), z = hn::LoadU(d, in + half + i);
      hn::StoreU(hn::NegMulAdd(z, s, hn::Mul(a, c)), d, out + i);
      hn::StoreU(hn::MulAdd(a, s, hn::Mul(z, c)), d, out + half + i);
    });
    if (in != out)
      for (int64_t i = 2 * half; i < D; ++i) out[i] = in[i];
  });
}

template <class D>
HWY_INLINE hn::Vec<D> folded(D d, const float* a, const float* b) {
  return hn::Max(hn::Zero(d), hn::Mul(hn::Set(d, 0.5f), hn::Add(hn::LoadU(d, a), hn::LoadU(d, b))));
}

void fold(int64_t R, const TensorView<const float, 4>& t, const TensorView<float, 4>& tbar, int64_t row0,
          int64_t row1) {
  const int64_t D = t.size(3), half = R / 2, rest = (D - R) / 2;
  for_heads(t, row0, row1, [&](int64_t b, int64_t n, int64_t g) HWY_ATTR {
    const float* in = t.ptr(b, n, g);
    float* out = tbar.ptr(b, n, g);
    for_lanes(half, [&](auto d, int64_t i) HWY_ATTR { hn::StoreU(folded(d, in + i, in + half + i), d, out + i); });
    for_lanes(rest, [&](auto d, int64_t i) HWY_ATTR {
      hn::StoreU(folded(d, in + R + i, in + R + rest + i), d, out + half + i);
    });
  });
}

HWY_INLINE void query_run(int kind, const PairRun& run, const float* q, float* out) {
  for_lanes(run.count, [&](auto d, int64_t i) HWY_ATTR {
    const auto c = load_or(d, run.cos, i, 1.0f), s = load_or(d, run.sin, i, 0.0f);
    auto a = hn::LoadU(d, q + run.a + i), b = hn::LoadU(d, q + run.b + i);
    if (kind == 1) {
      const auto w = hn::MulAdd(a, a, hn::Mul(b, b));
      hn::StoreU(hn::Mul(w, c), d, out + run.a + i);
      hn::StoreU(hn::Mul(w, s), d, out + run.b + i);
      return;
    }
    if (kind == 2) a = b = hn::Mul(hn::Set(d, 0.5f), hn::Add(a, b));
    hn::StoreU(hn::Mul(a, hn::NegMulAdd(b, s, hn::Mul(a, c))), d, out + run.a + i);
    hn::StoreU(hn::Mul(b, hn::MulAdd(a, s, hn::Mul(b, c))), d, out + run.b + i);
  });
}

void query(int kind, const RopeTables& tables, const TensorView<const float, 4>& q, const TensorView<float, 4>& q_eff,
           int64_t row0, int64_t row1) {
  for_heads(q, row0, row1, [&](int64_t b, int64_t n, int64_t h) HWY_ATTR {
    const HeadRuns runs = head_runs(tables, b, n, q.size(3));
    query_run(kind, runs.rotary, q.ptr(b, n, h), q_eff.ptr(b, n, h));
    query_run(kind, runs.rest, q.ptr(b, n, h), q_eff.ptr(b, n, h));
  });
}

// k_eff pair from tbar: slack t (c - s), t (c + s); strict t c, t s.
template <class D, class V>
HWY_INLINE void store_key(D d, int kind, const PairRun& run, int64_t i, V t, float* out) {
  const auto c = load_or(d, run.cos, i, 1.0f), s = load_or(d, run.sin, i, 0.0f);
  hn::StoreU(hn::Mul(t, kind == 1 ? c : hn::Sub(c, s)), d, out + run.a + i);
  hn::StoreU(hn::Mul(t, kind == 1 ? s : hn::Add(c, s)), d, out + run.b + i);
}

void key(int kind, const RopeTables& tables, const TensorView<const float, 4>& tbar, const TensorView<float, 4>& k_eff,
         int64_t row0, int64_t row1) {
  for_heads(tbar, row0, row1, [&](int64_t b, int64_t n, int64_t g) HWY_ATTR {
    const HeadRuns runs = head_runs(tables, b, n, k_eff.size(3));
    const float* in = tbar.ptr(b, n, g);
    float* out = k_eff.ptr(b, n, g);
    for_lanes(runs.rotary.count, [&](auto d, int64_t i)
                                     HWY_ATTR { store_key(d, kind, runs.rotary, i, hn::LoadU(d, in + i), out); });
    in += runs.rotary.count;
    for_lanes(runs.rest.count,
              [&](auto d, int64_t i) HWY_ATTR { store_key(d, kind, runs.rest, i, hn::LoadU(d, in + i), out); });
  });
}

void key_from_t(int kind, const RopeTables& tables, const TensorView<const float, 4>& t,
                const TensorView<float, 4>& k_eff, int64_t row0, int64_t row1) {
  for_heads(t, row0, row1, [&](int64_t b, int64_t n, int64_t g) HWY_ATTR {
    const HeadRuns runs = head_runs(tables, b, n, t.size(3));
    const float* in = t.ptr(b, n, g);
    float* out = k_eff.ptr(b, n, g);
    for (const PairRun& run : {runs.rotary, runs.rest})
      for_lanes(run.count, [&](auto d, int64_t i) HWY_ATTR {
        store_key(d, kind, run, i, folded(d, in + run.a + i, in + run.b + i), out);
      });
  });
}

HWY_INLINE void query_run_backward(int kind, const PairRun& run, const float* q, const float* g, float* dq) {
  for_lanes(run.count, [&](auto d, int64_t i) HWY_ATTR {
    const auto c = load_or(d, run.cos, i, 1.0f), s = load_or(d, run.sin, i, 0.0f);
    auto a = hn::LoadU(d, q + run.a + i), b = hn::LoadU(d, q + run.b + i);
    const auto ga = hn::LoadU(d, g + run.a + i), gb = hn::LoadU(d, g + run.b + i);
    if (kind == 1) {  // q_eff = (w c, w s), w = a^2 + b^2
      const auto dw2 = hn::Mul(hn::Set(d, 2.0f), hn::MulAdd(ga, c, hn::Mul(gb, s)));
      hn::StoreU(hn::Mul(a, dw2), d, dq + run.a + i);
      hn::StoreU(hn::Mul(b, dw2), d, dq + run.b + i);
      return;
    }
    const auto half = hn::Set(d, 0.5f);
    if (kind == 2) a = b = hn::Mul(half, hn::Add(a, b));
    // q_eff_a = a^2 c - a b s, q_eff_b = b^2 c + a b s
    const auto bs = hn::Mul(b, s), as = hn::Mul(a, s), c2 = hn::Add(c, c);
    auto da = hn::MulAdd(ga, hn::MulSub(a, c2, bs), hn::Mul(gb, bs));
    auto db = hn::NegMulAdd(ga, as, hn::Mul(gb, hn::MulAdd(b, c2, as)));
    if (kind == 2) da = db = hn::Mul(half, hn::Add(da, db));
    hn::StoreU(da, d, dq + run.a + i);
    hn::StoreU(db, d, dq + run.b + i);
  });
}

void query_backward(int kind, const RopeTables& tables, const TensorView<const float, 4>& q,
                    const TensorView<const float, 4>& dq_eff, const TensorView<float, 4>& dq, int64_t row0,
                    int64_t row1) {
  for_heads(q, row0, row1, [&](int64_t b, int64_t n, int64_t h) HWY_ATTR {
    const HeadRuns runs = head_runs(tables, b, n, q.size(3));
    query_run_backward(kind, runs.rotary, q.ptr(b, n, h), dq_eff.ptr(b, n, h), dq.ptr(b, n, h));
    query_run_backward(kind, runs.rest, q.ptr(b, n, h), dq_eff.ptr(b, n, h), dq.ptr(b, n, h));
  });
}

void key_backward(int kind, const RopeTables& tables, const TensorView<const float, 4>& t,
                  const TensorView<const float, 4>& dk_eff, const TensorView<float, 4>& dt, int64_t row0,
                  int64_t row1) {
  for_heads(t, row0, row1, [&](int64_t b, int64_t n, int64_t h) HWY_ATTR {
    const HeadRuns runs = head_runs(tables, b, n, t.size(3));
    const float* in = t.ptr(b, n, h);
    const float* g = dk_eff.ptr(b, n, h);
    float* out = dt.ptr(b, n, h);
    for (const PairRun& run : {runs.rotary, runs.rest})
      for_lanes(run.count, [&](auto d, int64_t i) HWY_ATTR {
        const auto c = load_or(d, run.cos, i, 1.0f), s = load_or(d, run.sin, i, 0.0f);
        const auto ga = hn::LoadU(d, g + run.a + i), gb = hn::LoadU(d, g + run.b + i);
        const auto wa = kind == 1 ? c : hn::Sub(c, s), wb = kind == 1 ? s : hn::Add(c, s);
        const auto dtbar = hn::MulAdd(ga, wa, hn::Mul(gb, wb));
        const auto open = hn::Gt(hn::Add(hn::LoadU(d, in + run.a + i), hn::LoadU(d, in + run.b + i)), hn::Zero(d));
        const auto each = hn::IfThenElseZero(open, hn::Mul(hn::Set(d, 0.5f), dtbar));
        hn::StoreU(each, d, out + run.a + i);
        hn::StoreU(each, d, out + run.b + i);
      });
  });
}

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(rope);
HWY_EXPORT(fold);
HWY_EXPORT(query);
HWY_EXPORT(key);
HWY_EXPORT(key_from_t);
HWY_EXPORT(query_backward);
HWY_EXPORT(key_backward);

void rope_rows(const RopeTables& tables, Turn turn, TensorView<const float, 4> x, TensorView<float, 4> y, int64_t row0,
               int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(rope)(tables, turn, x, y, row0, row1);
}
void collinear_fold_rows(int64_t R, TensorView<const float, 4> t, TensorView<float, 4> tbar, int64_t row0,
                         int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(fold)(R, t, tbar, row0, row1);
}
void collinear_query_rows(int kind, const RopeTables& tables, TensorView<const float, 4> q, TensorView<float, 4> q_eff,
                          int64_t row0, int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(query)(kind, tables, q, q_eff, row0, row1);
}
void collinear_key_rows(int kind, const RopeTables& tables, TensorView<const float, 4> tbar,
                        TensorView<float, 4> k_eff, int64_t row0, int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(key)(kind, tables, tbar, k_eff, row0, row1);
}
void collinear_key_rows_from_t(int kind, const RopeTables& tables, TensorView<const float, 4> t,
                               TensorView<float, 4> k_eff, int64_t row0, int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(key_from_t)(kind, tables, t, k_eff, row0, row1);
}
void collinear_query_rows_backward(int kind, const RopeTables& tables, TensorView<const float, 4> q,
                                   TensorView<const float, 4> dq_eff, TensorView<float, 4> dq, int64_t row0,
                                   int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(query_backward)(kind, tables, q, dq_eff, dq, row0, row1);
}
void collinear_key_rows_backward(int kind, const RopeTables& tables, TensorView<const float, 4> t,
                                 TensorView<const float, 4> dk_eff, TensorView<float, 4> dt, int64_t row0,
                                 int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(key_backward)(kind, tables, t, dk_eff, dt, row0, row1);
}

}  // namespace coca::cpu
#endif  // HWY_ONCE

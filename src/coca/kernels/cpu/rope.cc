// Each routine walks the pairs of a head in vectors and finishes with single lanes; the pair formula is
// written once as a template over the Highway tag and the element type (arithmetic in float, one rounding per
// stored number). Math: docs/math/rope.md, docs/math/collinear.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/rope.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/rope.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "coca/kernels/cpu/bf16-inl.h"
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

// Not a loop over a list of the two: copying them into it makes loads that span several stores, and those wait until
// all stores before them, of whole rows of results, have reached the cache.
template <class Body>
HWY_INLINE void for_runs(const HeadRuns& runs, const Body& body) {
  body(runs.rotary);
  body(runs.rest);
}

template <typename T, class Body>
HWY_INLINE void for_heads(Heads<T> x, int64_t row0, int64_t row1, const Body& body) {
  for (int64_t row = row0; row < row1; ++row) {
    const int64_t b = row / x.size(1), n = row % x.size(1);
    for (int64_t h = 0; h < x.size(2); ++h) body(b, n, h);
  }
}

template <typename T>
void rope(const RopeTables& tables, Turn turn, Heads<const T> x, Heads<T> y, int64_t row0, int64_t row1) {
  const int64_t half = tables.cos.size(2), D = x.size(3);
  for_heads(x, row0, row1, [&](int64_t b, int64_t n, int64_t h) HWY_ATTR {
    const T* in = x.ptr(b, n, h);
    T* out = y.ptr(b, n, h);
    const PairRun run = head_runs(tables, b, n, D).rotary;
    for_lanes(half, [&](auto d, int64_t i) HWY_ATTR {
      const auto c = load_f32(d, run.cos + i);
      const auto s0 = load_f32(d, run.sin + i);
      const auto s = turn == Turn::kForward ? s0 : hn::Neg(s0);
      const auto a = load_f32(d, in + i), z = load_f32(d, in + half + i);
      store_f32(hn::NegMulAdd(z, s, hn::Mul(a, c)), d, out + i);
      store_f32(hn::MulAdd(a, s, hn::Mul(z, c)), d, out + half + i);
    });
    if (in != out)
      for (int64_t i = 2 * half; i < D; ++i) out[i] = in[i];
  });
}

template <class D, typename T>
HWY_INLINE hn::Vec<D> folded(D d, const T* a, const T* b) {
  return hn::Max(hn::Zero(d), hn::Mul(hn::Set(d, 0.5f), hn::Add(load_f32(d, a), load_f32(d, b))));
}
template <class D, typename T>
HWY_INLINE hn::Vec<D> positive(D d, const T* t) {
  return hn::Max(hn::Zero(d), load_f32(d, t));
}

template <typename T, typename TBar>
void fold(int64_t R, Heads<const T> t, Heads<TBar> tbar, int64_t row0, int64_t row1) {
  const int64_t half = R / 2, rest = tbar.size(3) - half;
  const bool is_half = t.size(3) == tbar.size(3);
  for_heads(t, row0, row1, [&](int64_t b, int64_t n, int64_t g) HWY_ATTR {
    const T* in = t.ptr(b, n, g);
    TBar* out = tbar.ptr(b, n, g);
    if (is_half) {
      for_lanes(half + rest, [&](auto d, int64_t i) HWY_ATTR { store_f32(positive(d, in + i), d, out + i); });
      return;
    }
    for_lanes(half, [&](auto d, int64_t i) HWY_ATTR { store_f32(folded(d, in + i, in + half + i), d, out + i); });
    for_lanes(rest, [&](auto d, int64_t i)
                        HWY_ATTR { store_f32(folded(d, in + R + i, in + R + rest + i), d, out + half + i); });
  });
}

template <typename T>
HWY_INLINE void query_run(int kind, const PairRun& run, const T* q, T* out) {
  for_lanes(run.count, [&](auto d, int64_t i) HWY_ATTR {
    const auto c = load_or(d, run.cos, i, 1.0f), s = load_or(d, run.sin, i, 0.0f);
    auto a = load_f32(d, q + run.a + i), b = load_f32(d, q + run.b + i);
    if (kind == 1) {
      const auto w = hn::MulAdd(a, a, hn::Mul(b, b));
      store_f32(hn::Mul(w, c), d, out + run.a + i);
      store_f32(hn::Mul(w, s), d, out + run.b + i);
      return;
    }
    if (kind == 2) a = b = hn::Mul(hn::Set(d, 0.5f), hn::Add(a, b));
    store_f32(hn::Mul(a, hn::NegMulAdd(b, s, hn::Mul(a, c))), d, out + run.a + i);
    store_f32(hn::Mul(b, hn::MulAdd(a, s, hn::Mul(b, c))), d, out + run.b + i);
  });
}

template <typename T>
void query(int kind, const RopeTables& tables, Heads<const T> q, Heads<T> q_eff, int64_t row0, int64_t row1) {
  for_heads(q, row0, row1, [&](int64_t b, int64_t n, int64_t h) HWY_ATTR {
    const HeadRuns runs = head_runs(tables, b, n, q.size(3));
    query_run(kind, runs.rotary, q.ptr(b, n, h), q_eff.ptr(b, n, h));
    query_run(kind, runs.rest, q.ptr(b, n, h), q_eff.ptr(b, n, h));
  });
}

// k_eff pair from tbar: slack t (c - s), t (c + s); strict t c, t s.
template <class D, class V, typename T>
HWY_INLINE void store_key(D d, int kind, const PairRun& run, int64_t i, V t, T* out) {
  const auto c = load_or(d, run.cos, i, 1.0f), s = load_or(d, run.sin, i, 0.0f);
  store_f32(hn::Mul(t, kind == 1 ? c : hn::Sub(c, s)), d, out + run.a + i);
  store_f32(hn::Mul(t, kind == 1 ? s : hn::Add(c, s)), d, out + run.b + i);
}

template <typename TBar, typename T>
void key(int kind, const RopeTables& tables, Heads<const TBar> tbar, Heads<T> k_eff, int64_t row0, int64_t row1) {
  for_heads(tbar, row0, row1, [&](int64_t b, int64_t n, int64_t g) HWY_ATTR {
    const HeadRuns runs = head_runs(tables, b, n, k_eff.size(3));
    const TBar* in = tbar.ptr(b, n, g);
    T* out = k_eff.ptr(b, n, g);
    for_lanes(runs.rotary.count,
              [&](auto d, int64_t i) HWY_ATTR { store_key(d, kind, runs.rotary, i, load_f32(d, in + i), out); });
    in += runs.rotary.count;
    for_lanes(runs.rest.count,
              [&](auto d, int64_t i) HWY_ATTR { store_key(d, kind, runs.rest, i, load_f32(d, in + i), out); });
  });
}

template <typename T>
void key_from_t(int kind, const RopeTables& tables, Heads<const T> t, Heads<T> k_eff, int64_t row0, int64_t row1) {
  const bool is_half = 2 * t.size(3) == k_eff.size(3);
  for_heads(t, row0, row1, [&](int64_t b, int64_t n, int64_t g) HWY_ATTR {
    const HeadRuns runs = head_runs(tables, b, n, k_eff.size(3));
    const T* in = t.ptr(b, n, g);
    T* out = k_eff.ptr(b, n, g);
    for_runs(runs, [&](const PairRun& run) HWY_ATTR {
      if (is_half) {
        for_lanes(run.count, [&](auto d, int64_t i) HWY_ATTR { store_key(d, kind, run, i, positive(d, in + i), out); });
        in += run.count;
        return;
      }
      for_lanes(run.count, [&](auto d, int64_t i) HWY_ATTR {
        store_key(d, kind, run, i, folded(d, in + run.a + i, in + run.b + i), out);
      });
    });
  });
}

template <typename T>
HWY_INLINE void query_run_backward(int kind, const PairRun& run, const T* q, const T* g, T* dq) {
  for_lanes(run.count, [&](auto d, int64_t i) HWY_ATTR {
    const auto c = load_or(d, run.cos, i, 1.0f), s = load_or(d, run.sin, i, 0.0f);
    auto a = load_f32(d, q + run.a + i), b = load_f32(d, q + run.b + i);
    const auto ga = load_f32(d, g + run.a + i), gb = load_f32(d, g + run.b + i);
    if (kind == 1) {  // q_eff = (w c, w s), w = a^2 + b^2
      const auto dw2 = hn::Mul(hn::Set(d, 2.0f), hn::MulAdd(ga, c, hn::Mul(gb, s)));
      store_f32(hn::Mul(a, dw2), d, dq + run.a + i);
      store_f32(hn::Mul(b, dw2), d, dq + run.b + i);
      return;
    }
    const auto half = hn::Set(d, 0.5f);
    if (kind == 2) a = b = hn::Mul(half, hn::Add(a, b));
    // q_eff_a = a^2 c - a b s, q_eff_b = b^2 c + a b s
    const auto bs = hn::Mul(b, s), as = hn::Mul(a, s), c2 = hn::Add(c, c);
    auto da = hn::MulAdd(ga, hn::MulSub(a, c2, bs), hn::Mul(gb, bs));
    auto db = hn::NegMulAdd(ga, as, hn::Mul(gb, hn::MulAdd(b, c2, as)));
    if (kind == 2) da = db = hn::Mul(half, hn::Add(da, db));
    store_f32(da, d, dq + run.a + i);
    store_f32(db, d, dq + run.b + i);
  });
}

template <typename T>
void query_backward(int kind, const RopeTables& tables, Heads<const T> q, Heads<const T> dq_eff, Heads<T> dq,
                    int64_t row0, int64_t row1) {
  for_heads(q, row0, row1, [&](int64_t b, int64_t n, int64_t h) HWY_ATTR {
    const HeadRuns runs = head_runs(tables, b, n, q.size(3));
    query_run_backward(kind, runs.rotary, q.ptr(b, n, h), dq_eff.ptr(b, n, h), dq.ptr(b, n, h));
    query_run_backward(kind, runs.rest, q.ptr(b, n, h), dq_eff.ptr(b, n, h), dq.ptr(b, n, h));
  });
}

// dtbar of the pair from that of k_eff.
template <class D, typename T>
HWY_INLINE hn::Vec<D> key_gradient(D d, int kind, const PairRun& run, int64_t i, const T* g) {
  const auto c = load_or(d, run.cos, i, 1.0f), s = load_or(d, run.sin, i, 0.0f);
  const auto wa = kind == 1 ? c : hn::Sub(c, s), wb = kind == 1 ? s : hn::Add(c, s);
  return hn::MulAdd(load_f32(d, g + run.a + i), wa, hn::Mul(load_f32(d, g + run.b + i), wb));
}

template <typename T>
void key_backward(int kind, const RopeTables& tables, Heads<const T> t, Heads<const T> dk_eff, Heads<T> dt,
                  int64_t row0, int64_t row1) {
  const bool is_half = 2 * t.size(3) == dk_eff.size(3);
  for_heads(t, row0, row1, [&](int64_t b, int64_t n, int64_t h) HWY_ATTR {
    const HeadRuns runs = head_runs(tables, b, n, dk_eff.size(3));
    const T* in = t.ptr(b, n, h);
    const T* g = dk_eff.ptr(b, n, h);
    T* out = dt.ptr(b, n, h);
    for_runs(runs, [&](const PairRun& run) HWY_ATTR {
      const auto dtbar = [&](auto d, int64_t i) HWY_ATTR { return key_gradient(d, kind, run, i, g); };
      if (is_half) {
        for_lanes(run.count, [&](auto d, int64_t i) HWY_ATTR {
          store_f32(hn::IfThenElseZero(hn::Gt(load_f32(d, in + i), hn::Zero(d)), dtbar(d, i)), d, out + i);
        });
        in += run.count;
        out += run.count;
        return;
      }
      for_lanes(run.count, [&](auto d, int64_t i) HWY_ATTR {
        const auto open = hn::Gt(hn::Add(load_f32(d, in + run.a + i), load_f32(d, in + run.b + i)), hn::Zero(d));
        const auto each = hn::IfThenElseZero(open, hn::Mul(hn::Set(d, 0.5f), dtbar(d, i)));
        store_f32(each, d, out + run.a + i);
        store_f32(each, d, out + run.b + i);
      });
    });
  });
}

void tbar_backward(int kind, const RopeTables& tables, Heads<const float> dk_eff, Heads<float> dtbar, int64_t row0,
                   int64_t row1) {
  for_heads(dk_eff, row0, row1, [&](int64_t b, int64_t n, int64_t g) HWY_ATTR {
    const HeadRuns runs = head_runs(tables, b, n, dk_eff.size(3));
    const float* in = dk_eff.ptr(b, n, g);
    float* out = dtbar.ptr(b, n, g);
    for_runs(runs, [&](const PairRun& run) HWY_ATTR {
      for_lanes(run.count, [&](auto d, int64_t i) HWY_ATTR {
        hn::StoreU(hn::Add(hn::LoadU(d, out + i), key_gradient(d, kind, run, i, in)), d, out + i);
      });
      out += run.count;
    });
  });
}

template <typename T>
void fold_backward(int64_t R, Heads<const T> t, Heads<const float> dtbar, Heads<T> dt, int64_t row0, int64_t row1) {
  const int64_t half = R / 2, rest = dtbar.size(3) - half;
  const bool is_half = t.size(3) == dtbar.size(3);
  for_heads(t, row0, row1, [&](int64_t b, int64_t n, int64_t g) HWY_ATTR {
    const T* in = t.ptr(b, n, g);
    T* out = dt.ptr(b, n, g);
    const float* gradient = dtbar.ptr(b, n, g);
    if (is_half) {
      for_lanes(half + rest, [&](auto d, int64_t i) HWY_ATTR {
        const auto open = hn::Gt(load_f32(d, in + i), hn::Zero(d));
        store_f32(hn::IfThenElseZero(open, hn::LoadU(d, gradient + i)), d, out + i);
      });
      return;
    }
    const auto run = [&](int64_t a, int64_t z, int64_t count) HWY_ATTR {
      for_lanes(count, [&](auto d, int64_t i) HWY_ATTR {
        const auto open = hn::Gt(hn::Add(load_f32(d, in + a + i), load_f32(d, in + z + i)), hn::Zero(d));
        const auto each = hn::IfThenElseZero(open, hn::Mul(hn::Set(d, 0.5f), hn::LoadU(d, gradient + i)));
        store_f32(each, d, out + a + i);
        store_f32(each, d, out + z + i);
      });
      gradient += count;
    };
    run(0, half, half);
    run(R, R + rest, rest);
  });
}

// One name per element type, for the dispatch tables; fold and key: of t and tbar, of tbar and k_eff.
constexpr auto& rope_f32 = rope<float>;
constexpr auto& rope_bf16 = rope<BF16>;
constexpr auto& query_f32 = query<float>;
constexpr auto& query_bf16 = query<BF16>;
constexpr auto& key_from_t_f32 = key_from_t<float>;
constexpr auto& key_from_t_bf16 = key_from_t<BF16>;
constexpr auto& query_backward_f32 = query_backward<float>;
constexpr auto& query_backward_bf16 = query_backward<BF16>;
constexpr auto& key_backward_f32 = key_backward<float>;
constexpr auto& key_backward_bf16 = key_backward<BF16>;
constexpr auto& fold_backward_f32 = fold_backward<float>;
constexpr auto& fold_backward_bf16 = fold_backward<BF16>;
constexpr auto& fold_f32_f32 = fold<float, float>;
constexpr auto& fold_f32_bf16 = fold<float, BF16>;
constexpr auto& fold_bf16_f32 = fold<BF16, float>;
constexpr auto& fold_bf16_bf16 = fold<BF16, BF16>;
constexpr auto& key_f32_f32 = key<float, float>;
constexpr auto& key_f32_bf16 = key<float, BF16>;
constexpr auto& key_bf16_f32 = key<BF16, float>;
constexpr auto& key_bf16_bf16 = key<BF16, BF16>;

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(rope_f32);
HWY_EXPORT(rope_bf16);
HWY_EXPORT(query_f32);
HWY_EXPORT(query_bf16);
HWY_EXPORT(key_from_t_f32);
HWY_EXPORT(key_from_t_bf16);
HWY_EXPORT(query_backward_f32);
HWY_EXPORT(query_backward_bf16);
HWY_EXPORT(key_backward_f32);
HWY_EXPORT(key_backward_bf16);
HWY_EXPORT(tbar_backward);
HWY_EXPORT(fold_backward_f32);
HWY_EXPORT(fold_backward_bf16);
HWY_EXPORT(fold_f32_f32);
HWY_EXPORT(fold_f32_bf16);
HWY_EXPORT(fold_bf16_f32);
HWY_EXPORT(fold_bf16_bf16);
HWY_EXPORT(key_f32_f32);
HWY_EXPORT(key_f32_bf16);
HWY_EXPORT(key_bf16_f32);
HWY_EXPORT(key_bf16_bf16);

void rope_rows(const RopeTables& tables, Turn turn, Heads<const float> x, Heads<float> y, int64_t row0,
               int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(rope_f32)(tables, turn, x, y, row0, row1);
}
void rope_rows(const RopeTables& tables, Turn turn, Heads<const BF16> x, Heads<BF16> y, int64_t row0,
               int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(rope_bf16)(tables, turn, x, y, row0, row1);
}
void collinear_fold_rows(int64_t R, Heads<const float> t, Heads<float> tbar, int64_t row0, int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(fold_f32_f32)(R, t, tbar, row0, row1);
}
void collinear_fold_rows(int64_t R, Heads<const float> t, Heads<BF16> tbar, int64_t row0, int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(fold_f32_bf16)(R, t, tbar, row0, row1);
}
void collinear_fold_rows(int64_t R, Heads<const BF16> t, Heads<float> tbar, int64_t row0, int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(fold_bf16_f32)(R, t, tbar, row0, row1);
}
void collinear_fold_rows(int64_t R, Heads<const BF16> t, Heads<BF16> tbar, int64_t row0, int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(fold_bf16_bf16)(R, t, tbar, row0, row1);
}
void collinear_query_rows(int kind, const RopeTables& tables, Heads<const float> q, Heads<float> q_eff, int64_t row0,
                          int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(query_f32)(kind, tables, q, q_eff, row0, row1);
}
void collinear_query_rows(int kind, const RopeTables& tables, Heads<const BF16> q, Heads<BF16> q_eff, int64_t row0,
                          int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(query_bf16)(kind, tables, q, q_eff, row0, row1);
}
void collinear_key_rows(int kind, const RopeTables& tables, Heads<const float> tbar, Heads<float> k_eff, int64_t row0,
                        int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(key_f32_f32)(kind, tables, tbar, k_eff, row0, row1);
}
void collinear_key_rows(int kind, const RopeTables& tables, Heads<const float> tbar, Heads<BF16> k_eff, int64_t row0,
                        int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(key_f32_bf16)(kind, tables, tbar, k_eff, row0, row1);
}
void collinear_key_rows(int kind, const RopeTables& tables, Heads<const BF16> tbar, Heads<float> k_eff, int64_t row0,
                        int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(key_bf16_f32)(kind, tables, tbar, k_eff, row0, row1);
}
void collinear_key_rows(int kind, const RopeTables& tables, Heads<const BF16> tbar, Heads<BF16> k_eff, int64_t row0,
                        int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(key_bf16_bf16)(kind, tables, tbar, k_eff, row0, row1);
}
void collinear_key_rows_from_t(int kind, const RopeTables& tables, Heads<const float> t, Heads<float> k_eff,
                               int64_t row0, int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(key_from_t_f32)(kind, tables, t, k_eff, row0, row1);
}
void collinear_key_rows_from_t(int kind, const RopeTables& tables, Heads<const BF16> t, Heads<BF16> k_eff, int64_t row0,
                               int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(key_from_t_bf16)(kind, tables, t, k_eff, row0, row1);
}
void collinear_query_rows_backward(int kind, const RopeTables& tables, Heads<const float> q, Heads<const float> dq_eff,
                                   Heads<float> dq, int64_t row0, int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(query_backward_f32)(kind, tables, q, dq_eff, dq, row0, row1);
}
void collinear_query_rows_backward(int kind, const RopeTables& tables, Heads<const BF16> q, Heads<const BF16> dq_eff,
                                   Heads<BF16> dq, int64_t row0, int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(query_backward_bf16)(kind, tables, q, dq_eff, dq, row0, row1);
}
void collinear_key_rows_backward(int kind, const RopeTables& tables, Heads<const float> t, Heads<const float> dk_eff,
                                 Heads<float> dt, int64_t row0, int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(key_backward_f32)(kind, tables, t, dk_eff, dt, row0, row1);
}
void collinear_key_rows_backward(int kind, const RopeTables& tables, Heads<const BF16> t, Heads<const BF16> dk_eff,
                                 Heads<BF16> dt, int64_t row0, int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(key_backward_bf16)(kind, tables, t, dk_eff, dt, row0, row1);
}
void collinear_tbar_rows_backward(int kind, const RopeTables& tables, Heads<const float> dk_eff, Heads<float> dtbar,
                                  int64_t row0, int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(tbar_backward)(kind, tables, dk_eff, dtbar, row0, row1);
}
void collinear_fold_rows_backward(int64_t R, Heads<const float> t, Heads<const float> dtbar, Heads<float> dt,
                                  int64_t row0, int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(fold_backward_f32)(R, t, dtbar, dt, row0, row1);
}
void collinear_fold_rows_backward(int64_t R, Heads<const BF16> t, Heads<const float> dtbar, Heads<BF16> dt,
                                  int64_t row0, int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(fold_backward_bf16)(R, t, dtbar, dt, row0, row1);
}

}  // namespace coca::cpu
#endif  // HWY_ONCE

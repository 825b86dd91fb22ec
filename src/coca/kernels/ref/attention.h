// coca/kernels/ref/attention.h - attention, plainly: one row of scores at a time. Math: docs/math/attention.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <span>
#include <vector>

#include "coca/kernels/ref/scalar.h"
#include "coca/tensor/view.h"

namespace coca::ref {

struct AttentionSpec {
  double scale = 1.0;
  bool causal = true;
  int64_t window = 0;  // keys before m + 1 - window are not visible, with m the query's position; 0: all
  int64_t hidden = 0;  // causal: the last visible key is m - hidden
  // ALiBi: the largest distance of a key and the largest position of a query that count; 0: no limit.
  int64_t most_distance = 0, most_position = 0;
  int64_t forgotten = 0;  // ALiBi: tokens dropped in between; queries are this much further from their keys
  int64_t query_start = 0;
  const int64_t* dilation = nullptr;  // [H] n: every n-th key back from the query is visible; the window counts these
  int64_t first = 0;                  // keys before it are not visible
  // ALiBi: a query at m is at position offset + m * query_step, and key s at s * key_step.
  int64_t offset = 0, query_step = 1, key_step = 1;
  const float* slopes = nullptr;                  // [H] ALiBi slopes or null
  TensorView<const int32_t, 2> document_start{};  // [B, N] keys before it are not visible; empty: none
};

// The visible keys of query row n of batch b and head h: every step-th of [begin, end).
struct VisibleKeys {
  int64_t begin, end, step;
};
inline VisibleKeys visible_keys(const AttentionSpec& spec, int64_t b, int64_t n, int64_t S, int64_t h = 0) {
  const int64_t m = spec.query_start + n, step = spec.dilation ? spec.dilation[h] : 1;
  const int64_t end = spec.causal ? std::max<int64_t>(0, std::min(S, m + 1 - spec.hidden * step)) : S;
  const int64_t window = spec.window > 0 ? m - (spec.window - 1) * step : 0;
  const int64_t document = spec.document_start.empty() ? 0 : spec.document_start(b, n);
  int64_t begin = std::clamp<int64_t>(std::max({window, document, spec.first}), 0, end);
  while ((m - begin) % step != 0) ++begin;
  return {std::min(begin, end), end, step};
}

// Keys with their vectors and rules of visibility; several may share a softmax.
template <typename T>
struct AttentionKeys {
  AttentionSpec spec;
  TensorView<const T, 4> q, k;  // [B, N, H, E] [B, S, G, E]
  TensorView<const T, 4> v{};   // [B, S, G, D], if they have values of their own
  // [B, H, S] [B, H, N]: adds query_decay - decay to the scaled score; empty: none
  TensorView<const T, 3> decay{}, query_decay{};
};

// Appends the scores of one query row over its visible keys to `scores`; returns these keys.
template <typename T>
VisibleKeys attention_scores(const AttentionKeys<T>& keys, int64_t b, int64_t n, int64_t h, int64_t g,
                             std::vector<T>& scores) {
  const AttentionSpec& spec = keys.spec;
  const int64_t E = keys.k.size(3), m = spec.query_start + n;
  const VisibleKeys seen = visible_keys(spec, b, n, keys.k.size(1), h);
  const T* q = keys.q.ptr(b, n, h);
  for (int64_t s = seen.begin; s < seen.end; s += seen.step) {
    const T* key = keys.k.ptr(b, s, g);
    T sum(0);
    for (int64_t e = 0; e < E; ++e) sum += q[e] * key[e];
    sum = sum * T(spec.scale);
    if (!keys.decay.empty()) sum += keys.query_decay(b, h, n) - keys.decay(b, h, s);
    const int64_t place = spec.offset + m * spec.query_step + spec.forgotten;
    int64_t distance =
        std::abs((spec.most_position > 0 ? std::min(place, spec.most_position) : place) - s * spec.key_step);
    if (spec.most_distance > 0) distance = std::min(distance, spec.most_distance);
    if (spec.slopes) sum -= T(static_cast<double>(spec.slopes[h]) * static_cast<double>(distance));
    scores.push_back(sum);
  }
  return seen;
}

// Softmax in place; returns log sum exp (-inf for no keys).
template <typename T>
T softmax_row(std::vector<T>& row) {
  if (row.empty()) return T(-std::numeric_limits<double>::infinity());
  auto largest = real_part(row[0]);
  for (const T& x : row) largest = std::max(largest, real_part(x));
  T sum(0);
  for (T& x : row) sum += (x = std::exp(x - T(largest)));
  for (T& x : row) x /= sum;
  return T(largest) + std::log(sum);
}

// Probabilities of one query row over the keys of all parts, one part after the other.
template <typename T>
struct AttentionRow {
  std::vector<T> p;
  std::vector<int64_t> begin, step;  // of each part: the first visible key, and the step to the next
  std::vector<size_t> offset;        // and where its keys begin in p; one more entry
  T lse;

  AttentionRow(std::span<const AttentionKeys<T>> parts, int64_t b, int64_t n, int64_t h, int64_t g) {
    for (const AttentionKeys<T>& part : parts) {
      offset.push_back(p.size());
      const VisibleKeys seen = attention_scores(part, b, n, h, g, p);
      begin.push_back(seen.begin);
      step.push_back(seen.step);
    }
    offset.push_back(p.size());
    lse = softmax_row(p);
  }
  // The key that entry i of p, in this part, belongs to.
  int64_t key(size_t part, size_t i) const { return begin[part] + static_cast<int64_t>(i - offset[part]) * step[part]; }
};

// o [B, N, H, D] and lse [B, H, N] (may be empty) are written; v [B, S, G, D] serves the parts that have none of
// their own.
template <typename T>
void attention_forward(std::span<const AttentionKeys<T>> parts, TensorView<const T, 4> v, TensorView<T, 4> o,
                       TensorView<T, 3> lse) {
  const int64_t H = o.size(2), D = o.size(3), group = H / v.size(2);
  for (int64_t b = 0; b < o.size(0); ++b)
    for (int64_t h = 0; h < H; ++h)
      for (int64_t n = 0; n < o.size(1); ++n) {
        const AttentionRow<T> row(parts, b, n, h, h / group);
        if (!lse.empty()) lse(b, h, n) = row.lse;
        T* out = o.ptr(b, n, h);
        for (int64_t d = 0; d < D; ++d) out[d] = T(0);
        for (size_t part = 0; part < parts.size(); ++part)
          for (size_t i = row.offset[part]; i < row.offset[part + 1]; ++i) {
            const T* value = (parts[part].v.empty() ? v : parts[part].v).ptr(b, row.key(part, i), h / group);
            for (int64_t d = 0; d < D; ++d) out[d] += row.p[i] * value[d];
          }
      }
}

template <typename T>
void attention_forward(const AttentionSpec& spec, TensorView<const T, 4> q, TensorView<const T, 4> k,
                       TensorView<const T, 4> v, TensorView<T, 4> o, TensorView<T, 3> lse) {
  const AttentionKeys<T> all{spec, q, k};
  attention_forward(std::span(&all, 1), v, o, lse);
}

// Keys in parts: o [B, N, H, D] and lse [B, H, N] of one part join those of the earlier parts (lse -inf: nothing
// yet), as under one softmax.
template <typename T>
void attention_merge(TensorView<const T, 4> part_o, TensorView<const T, 3> part_lse, TensorView<T, 4> o,
                     TensorView<T, 3> lse) {
  for (int64_t b = 0; b < o.size(0); ++b)
    for (int64_t n = 0; n < o.size(1); ++n)
      for (int64_t h = 0; h < o.size(2); ++h) {
        const T x = lse(b, h, n), y = part_lse(b, h, n);
        const auto largest = std::max(real_part(x), real_part(y));
        if (largest == -std::numeric_limits<double>::infinity()) continue;
        const bool first = real_part(x) == -std::numeric_limits<double>::infinity();  // o holds nothing yet
        const T wx = first ? T(0) : std::exp(x - T(largest)), wy = std::exp(y - T(largest)), sum = wx + wy;
        lse(b, h, n) = T(largest) + std::log(sum);
        for (int64_t d = 0; d < o.size(3); ++d)
          o(b, n, h, d) = ((first ? T(0) : wx * o(b, n, h, d)) + wy * part_o(b, n, h, d)) / sum;
      }
}

// The result of the forward pass over all keys, if those of a call are only a part of them.
template <typename T>
struct AttentionSaved {
  TensorView<const T, 4> o;    // [B, N, H, D]
  TensorView<const T, 3> lse;  // [B, H, N]
};

// Gradients of one part's q and k, of its v if it has its own, and of its decay.
template <typename T>
struct AttentionKeyGrads {
  TensorView<T, 4> dq, dk;
  TensorView<T, 4> dv{};
  TensorView<T, 3> ddecay{}, dquery_decay{};  // added to; they may be parts of one tensor
};

template <typename T>
void zero(TensorView<T, 4> x) {
  for (int64_t b = 0; b < x.size(0); ++b)
    for (int64_t s = 0; s < x.size(1); ++s)
      for (int64_t g = 0; g < x.size(2); ++g) std::fill_n(x.ptr(b, s, g), x.size(3), T(0));
}

// All gradients but those of decay are written. With p = softmax(s): dv += p do; dp = do v; ds = p (dp - sum_d do o);
// dq = ds k; dk += ds q. With `saved` p = exp(s - lse) and sum_d do o are those of all keys.
template <typename T>
void attention_backward(std::span<const AttentionKeys<T>> parts, TensorView<const T, 4> v, TensorView<const T, 4> d_o,
                        std::span<const AttentionKeyGrads<T>> grads, TensorView<T, 4> dv,
                        const AttentionSaved<T>* saved = nullptr) {
  const int64_t H = d_o.size(2), D = d_o.size(3), group = H / v.size(2);
  zero(dv);
  for (const AttentionKeyGrads<T>& part : grads) {
    zero(part.dq);
    zero(part.dk);
    zero(part.dv);
  }
  std::vector<T> dp;
  for (int64_t b = 0; b < d_o.size(0); ++b)
    for (int64_t h = 0; h < H; ++h)
      for (int64_t n = 0; n < d_o.size(1); ++n) {
        const int64_t g = h / group;
        AttentionRow<T> row(parts, b, n, h, g);
        for (T& p : row.p)
          if (saved) p *= std::exp(row.lse - saved->lse(b, h, n));
        const auto values = [&](size_t part) { return parts[part].v.empty() ? v : parts[part].v; };
        dp.assign(row.p.size(), T(0));
        T delta(0);
        for (size_t part = 0; part < parts.size(); ++part)
          for (size_t i = row.offset[part]; i < row.offset[part + 1]; ++i) {
            for (int64_t d = 0; d < D; ++d) dp[i] += d_o(b, n, h, d) * values(part)(b, row.key(part, i), g, d);
            delta += row.p[i] * dp[i];
          }
        if (saved) {
          delta = T(0);
          for (int64_t d = 0; d < D; ++d) delta += saved->o(b, n, h, d) * d_o(b, n, h, d);
        }
        for (size_t part = 0; part < parts.size(); ++part)
          for (size_t i = row.offset[part]; i < row.offset[part + 1]; ++i) {
            const int64_t s = row.key(part, i);
            const TensorView<T, 4> own = grads[part].dv.empty() ? dv : grads[part].dv;
            const T dx = row.p[i] * (dp[i] - delta), ds = dx * T(parts[part].spec.scale);
            if (!grads[part].ddecay.empty()) {
              grads[part].dquery_decay(b, h, n) += dx;
              grads[part].ddecay(b, h, s) -= dx;
            }
            for (int64_t d = 0; d < D; ++d) own(b, s, g, d) += row.p[i] * d_o(b, n, h, d);
            for (int64_t e = 0; e < parts[part].q.size(3); ++e) {
              grads[part].dq(b, n, h, e) += ds * parts[part].k(b, s, g, e);
              grads[part].dk(b, s, g, e) += ds * parts[part].q(b, n, h, e);
            }
          }
      }
}

template <typename T>
void attention_backward(const AttentionSpec& spec, TensorView<const T, 4> q, TensorView<const T, 4> k,
                        TensorView<const T, 4> v, TensorView<const T, 4> d_o, TensorView<T, 4> dq, TensorView<T, 4> dk,
                        TensorView<T, 4> dv) {
  const AttentionKeys<T> all{spec, q, k};
  const AttentionKeyGrads<T> grads{dq, dk};
  attention_backward(std::span(&all, 1), v, d_o, std::span(&grads, 1), dv);
}

}  // namespace coca::ref

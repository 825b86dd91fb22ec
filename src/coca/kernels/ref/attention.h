// coca/kernels/ref/attention.h - attention, plainly: one row of scores at a time. Math: docs/math/attention.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <vector>

#include "coca/kernels/ref/scalar.h"
#include "coca/tensor/view.h"

namespace coca::ref {

struct AttentionSpec {
  double scale = 1.0;
  bool causal = true;
  int64_t window = 0;  // keys a query sees, itself included; 0: all
  int64_t query_start = 0;
  const float* slopes = nullptr;                  // [H] ALiBi slopes or null
  TensorView<const int32_t, 2> document_start{};  // [B, N] no key before it is seen; empty: none
};

// The keys query row n of batch b sees.
struct VisibleKeys {
  int64_t begin, end;
};
inline VisibleKeys visible_keys(const AttentionSpec& spec, int64_t b, int64_t n, int64_t S) {
  const int64_t m = spec.query_start + n;
  const int64_t end = spec.causal ? std::max<int64_t>(0, std::min(S, m + 1)) : S;
  const int64_t window = spec.window > 0 ? m + 1 - spec.window : 0;
  const int64_t document = spec.document_start.empty() ? 0 : spec.document_start(b, n);
  return {std::clamp<int64_t>(std::max(window, document), 0, end), end};
}

// Scores of one query row over its visible keys; returns the first of them.
template <typename T>
int64_t attention_scores(const AttentionSpec& spec, const T* q, TensorView<const T, 4> k, int64_t b, int64_t n,
                         int64_t h, int64_t g, std::vector<T>& scores) {
  const int64_t D = k.size(3), m = spec.query_start + n;
  const auto [begin, end] = visible_keys(spec, b, n, k.size(1));
  scores.assign(static_cast<size_t>(end - begin), T(0));
  for (int64_t s = begin; s < end; ++s) {
    const T* key = k.ptr(b, s, g);
    T sum(0);
    for (int64_t d = 0; d < D; ++d) sum += q[d] * key[d];
    sum = sum * T(spec.scale);
    if (spec.slopes) sum -= T(static_cast<double>(spec.slopes[h]) * static_cast<double>(m - s));
    scores[static_cast<size_t>(s - begin)] = sum;
  }
  return begin;
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

// o [B, N, H, D] and lse [B, H, N] (may be empty) are written.
template <typename T>
void attention_forward(const AttentionSpec& spec, TensorView<const T, 4> q, TensorView<const T, 4> k,
                       TensorView<const T, 4> v, TensorView<T, 4> o, TensorView<T, 3> lse) {
  const int64_t H = q.size(2), D = q.size(3), group = H / k.size(2);
  std::vector<T> p;
  for (int64_t b = 0; b < q.size(0); ++b)
    for (int64_t h = 0; h < H; ++h)
      for (int64_t n = 0; n < q.size(1); ++n) {
        const int64_t begin = attention_scores(spec, q.ptr(b, n, h), k, b, n, h, h / group, p);
        const T row_lse = softmax_row(p);
        if (!lse.empty()) lse(b, h, n) = row_lse;
        T* out = o.ptr(b, n, h);
        for (int64_t d = 0; d < D; ++d) out[d] = T(0);
        for (size_t i = 0; i < p.size(); ++i) {
          const T* value = v.ptr(b, begin + static_cast<int64_t>(i), h / group);
          for (int64_t d = 0; d < D; ++d) out[d] += p[i] * value[d];
        }
      }
}

// dq, dk, dv are written. With p = softmax(s): dv += p do; dp = do v; ds = p (dp - sum_d do o); dq = ds k; dk += ds q.
template <typename T>
void attention_backward(const AttentionSpec& spec, TensorView<const T, 4> q, TensorView<const T, 4> k,
                        TensorView<const T, 4> v, TensorView<const T, 4> d_o, TensorView<T, 4> dq, TensorView<T, 4> dk,
                        TensorView<T, 4> dv) {
  const int64_t B = q.size(0), N = q.size(1), H = q.size(2), D = q.size(3), S = k.size(1), group = H / k.size(2);
  for (int64_t b = 0; b < B; ++b)
    for (int64_t s = 0; s < S; ++s)
      for (int64_t g = 0; g < k.size(2); ++g)
        for (int64_t d = 0; d < D; ++d) dk(b, s, g, d) = dv(b, s, g, d) = T(0);
  std::vector<T> p, dp;
  for (int64_t b = 0; b < B; ++b)
    for (int64_t h = 0; h < H; ++h)
      for (int64_t n = 0; n < N; ++n) {
        const int64_t g = h / group;
        const int64_t begin = attention_scores(spec, q.ptr(b, n, h), k, b, n, h, g, p);
        softmax_row(p);
        dp.assign(p.size(), T(0));
        T delta(0);
        for (size_t i = 0; i < p.size(); ++i) {
          for (int64_t d = 0; d < D; ++d) dp[i] += d_o(b, n, h, d) * v(b, begin + static_cast<int64_t>(i), g, d);
          delta += p[i] * dp[i];
        }
        for (int64_t d = 0; d < D; ++d) dq(b, n, h, d) = T(0);
        for (size_t i = 0; i < p.size(); ++i) {
          const int64_t s = begin + static_cast<int64_t>(i);
          const T prob = p[i];
          const T ds = prob * (dp[i] - delta) * T(spec.scale);
          for (int64_t d = 0; d < D; ++d) {
            dv(b, s, g, d) += prob * d_o(b, n, h, d);
            dq(b, n, h, d) += ds * k(b, s, g, d);
            dk(b, s, g, d) += ds * q(b, n, h, d);
          }
        }
      }
}

}  // namespace coca::ref

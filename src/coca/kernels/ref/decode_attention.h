// coca/kernels/ref/decode_attention.h - attention over un-rotated keys, plainly: rotate all of them, then attend.
// Math: docs/math/decode_attention.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <vector>

#include "coca/kernels/ref/attention.h"
#include "coca/kernels/ref/collinear.h"

namespace coca::ref {

enum class DecodeScore { kDot, kRope, kSlack, kStrict, kTied, kOfficial };  // slack.. tied: ref/collinear.h's 0, 1, 2

// One head of a query [D] or a stored key ([D], collinear: tbar [D/2]) as the dot product sees it.
template <typename T, typename Cos, typename Sin>
void decode_query_head(DecodeScore score, const T* q, int64_t R, int64_t D, Cos cos, Sin sin, T* out) {
  switch (score) {
    case DecodeScore::kDot: std::copy(q, q + D, out); return;
    case DecodeScore::kRope:
      for (int64_t j = 0; j < R / 2; ++j) {
        const T a = q[j], b = q[j + R / 2];
        out[j] = a * T(cos(j)) - b * T(sin(j));
        out[j + R / 2] = b * T(cos(j)) + a * T(sin(j));
      }
      std::copy(q + R, q + D, out + R);
      return;
    case DecodeScore::kOfficial: collinear_official_head<T>(q, nullptr, R, D, cos, sin, out, nullptr); return;
    default:
      collinear_query_head(static_cast<int>(score) - static_cast<int>(DecodeScore::kSlack), q, R, D, cos, sin, out);
  }
}
template <typename T, typename Cos, typename Sin>
void decode_key_head(DecodeScore score, const T* key, int64_t R, int64_t D, Cos cos, Sin sin, T* out) {
  switch (score) {
    case DecodeScore::kDot:
    case DecodeScore::kRope: decode_query_head(score, key, R, D, cos, sin, out); return;
    case DecodeScore::kOfficial: {
      std::vector<T> t(key, key + D / 2);  // folding [tbar, tbar] gives tbar back
      t.insert(t.end(), key, key + D / 2);
      collinear_official_head<T>(nullptr, t.data(), R, D, cos, sin, nullptr, out);
      return;
    }
    default:
      collinear_key_head(static_cast<int>(score) - static_cast<int>(DecodeScore::kSlack), key, R, D, cos, sin, out);
  }
}

// q [B, N, H, D], keys [B, S, G, W], v [B, S, G, D], o [B, N, H, D] and lse [B, H, N] (may be empty) written.
// cos(b, s, j) and sin(b, s, j) are those of token s; spec.query_start = S - N.
template <typename T, typename Cos, typename Sin>
void decode_attention(const AttentionSpec& spec, DecodeScore score, int64_t R, Cos cos, Sin sin,
                      TensorView<const T, 4> q, TensorView<const T, 4> keys, TensorView<const T, 4> v,
                      TensorView<T, 4> o, TensorView<T, 3> lse) {
  const auto rotated = [&](TensorView<const T, 4> x, int64_t first, std::vector<T>& out, const auto& head) {
    const int64_t D = q.size(3), B = x.size(0), N = x.size(1), H = x.size(2);
    out.resize(static_cast<size_t>(B * N * H * D));
    for (int64_t b = 0; b < B; ++b)
      for (int64_t n = 0; n < N; ++n)
        for (int64_t h = 0; h < H; ++h)
          head(score, x.ptr(b, n, h), R, D, [&](int64_t j) { return cos(b, first + n, j); },
               [&](int64_t j) { return sin(b, first + n, j); }, out.data() + ((b * N + n) * H + h) * D);
    return TensorView<const T, 4>{out.data(), {B, N, H, D}, {N * H * D, H * D, D, 1}};
  };
  std::vector<T> q_eff, k_eff;
  const auto queries = rotated(q, spec.query_start, q_eff, [](auto... a) { decode_query_head<T>(a...); });
  const auto turned = rotated(keys, 0, k_eff, [](auto... a) { decode_key_head<T>(a...); });
  attention_forward<T>(spec, queries, turned, v, o, lse);
}

}  // namespace coca::ref

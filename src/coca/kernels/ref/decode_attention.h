// coca/kernels/ref/decode_attention.h - attention over keys before rotation, plainly: rotate all of them, then attend.
// Math: docs/math/decode_attention.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <functional>
#include <span>
#include <vector>

#include "coca/kernels/args/decode_attention.h"
#include "coca/kernels/ref/attention.h"
#include "coca/kernels/ref/collinear.h"

namespace coca::ref {

enum class DecodeScore : uint8_t { kDot, kRope, kCollinear, kOfficial };
inline DecodeScore decode_score(const ops::DecodeAttentionOptions& o, int64_t R, int64_t D) {
  if (o.score == ops::Score::kDot) return DecodeScore::kDot;
  if (o.score == ops::Score::kRope) return DecodeScore::kRope;
  return o.collinear.fold == ops::Fold::kOfficial && R < D ? DecodeScore::kOfficial : DecodeScore::kCollinear;
}

// One head of a query [D] or a stored key ([D], collinear: tbar [D/2]) as the operand of the dot product.
template <typename T, typename Cos, typename Sin>
constexpr void decode_query_head(DecodeScore score, ops::Collinear kind, const T* q, int64_t R, int64_t D, Cos cos,
                                 Sin sin, T* out) {
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
    case DecodeScore::kCollinear:
      ops::with_form(kind, [&](auto form) { collinear_query_head(form, CollinearHead{R, D}, q, cos, sin, out); });
  }
}
template <typename T, typename Cos, typename Sin>
void decode_key_head(DecodeScore score, ops::Collinear kind, const T* key, int64_t R, int64_t D, Cos cos, Sin sin,
                     T* out) {
  switch (score) {
    case DecodeScore::kDot:
    case DecodeScore::kRope: decode_query_head(score, kind, key, R, D, cos, sin, out); return;
    case DecodeScore::kOfficial: {
      std::vector<T> t(key, key + D / 2);  // folding [tbar, tbar] gives tbar back
      t.insert(t.end(), key, key + D / 2);
      collinear_official_head<T>(nullptr, t.data(), R, D, cos, sin, nullptr, out);
      return;
    }
    case DecodeScore::kCollinear: collinear_key_head(ops::key_direction(kind), {R, D}, key, cos, sin, out);
  }
}

// Tokens with their angles and rules of visibility. Angles: cos and sin by (b, query or token, pair).
template <typename T>
struct DecodeSide {
  using Angle = std::function<T(int64_t b, int64_t n, int64_t j)>;
  AttentionSpec spec;
  int64_t tokens = 0;  // the first tokens of the cache
  Angle query_cos, query_sin, key_cos, key_sin;
  Angle turn_cos, turn_sin;  // by which q_eff is rotated further, or empty
};

// q [B, N, H, D], keys [B, S, G, W], v [B, S, G, D], o [B, N, H, D] and lse [B, H, N] (may be empty) written.
template <typename T>
void decode_attention(std::span<const DecodeSide<T>> sides, DecodeScore score, ops::Collinear kind, int64_t R,
                      TensorView<const T, 4> q, TensorView<const T, 4> keys, TensorView<const T, 4> v,
                      TensorView<T, 4> o, TensorView<T, 3> lse) {
  const int64_t D = q.size(3);
  std::vector<std::vector<T>> memory;
  // Every head of x as `head` makes it.
  const auto each_head = [&](TensorView<const T, 4> x, int64_t count, const auto& head) {
    const int64_t B = x.size(0), H = x.size(2);
    std::vector<T>& out = memory.emplace_back(static_cast<size_t>(B * count * H * D));
    for (int64_t b = 0; b < B; ++b)
      for (int64_t n = 0; n < count; ++n)
        for (int64_t h = 0; h < H; ++h) head(b, n, x.ptr(b, n, h), out.data() + ((b * count + n) * H + h) * D);
    return TensorView<const T, 4>{out.data(), {B, count, H, D}, {count * H * D, H * D, D, 1}};
  };
  std::vector<AttentionKeys<T>> parts;
  memory.reserve(2 * sides.size());
  for (const DecodeSide<T>& side : sides) {
    const auto at = [](const auto& angle, int64_t b, int64_t n) {
      return [&angle, b, n](int64_t j) { return angle(b, n, j); };
    };
    const auto queries = each_head(q, q.size(1), [&](int64_t b, int64_t n, const T* x, T* out) {
      decode_query_head(score, kind, x, R, D, at(side.query_cos, b, n), at(side.query_sin, b, n), out);
      if (!side.turn_cos) return;
      const std::vector<T> once(out, out + D);
      decode_query_head(DecodeScore::kRope, kind, once.data(), R, D, at(side.turn_cos, b, n), at(side.turn_sin, b, n),
                        out);
    });
    const auto turned = each_head(keys, side.tokens, [&](int64_t b, int64_t n, const T* x, T* out) {
      decode_key_head(score, kind, x, R, D, at(side.key_cos, b, n), at(side.key_sin, b, n), out);
    });
    parts.push_back({side.spec, queries, turned});
  }
  attention_forward<T>(parts, v, o, lse);
}

// All tokens, cos(b, s, j) and sin(b, s, j) those of token s; spec.query_start = S - N.
template <typename T, typename Cos, typename Sin>
void decode_attention(const AttentionSpec& spec, DecodeScore score, ops::Collinear kind, int64_t R, Cos cos, Sin sin,
                      TensorView<const T, 4> q, TensorView<const T, 4> keys, TensorView<const T, 4> v,
                      TensorView<T, 4> o, TensorView<T, 3> lse) {
  const auto angle = [](const auto& of, int64_t first) {
    return [of, first](int64_t b, int64_t n, int64_t j) { return T(of(b, first + n, j)); };
  };
  const DecodeSide<T> all{.spec = spec,
                          .tokens = keys.size(1),
                          .query_cos = angle(cos, spec.query_start),
                          .query_sin = angle(sin, spec.query_start),
                          .key_cos = angle(cos, 0),
                          .key_sin = angle(sin, 0)};
  decode_attention<T>(std::span(&all, 1), score, kind, R, q, keys, v, o, lse);
}

}  // namespace coca::ref

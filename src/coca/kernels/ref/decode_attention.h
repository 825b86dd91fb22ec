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

// How stored keys become those that attention sees.
struct DecodeKeys {
  DecodeScore score;
  ops::KeyDirection direction;
  CollinearHead head;
};
inline DecodeKeys decode_keys(const ops::DecodeAttentionOptions& o, int64_t R, int64_t E) {
  if (o.score == ops::Score::kDot) return {DecodeScore::kDot, {1.0f, 0.0f}, {0, E}};
  if (o.score == ops::Score::kRope) return {DecodeScore::kRope, {1.0f, 0.0f}, {R, E}};
  if (o.collinear.fold == ops::Fold::kOfficial && R < E) return {DecodeScore::kOfficial, {1.0f, 0.0f}, {R, E}};
  return {DecodeScore::kCollinear, ops::key_direction(o.collinear.kind), {R, E, o.collinear.content}};
}

// One head of a stored key [W] as the operand of the dot product [E].
template <typename T, typename Cos, typename Sin>
void decode_key_head(const DecodeKeys& keys, const T* key, Cos cos, Sin sin, T* out) {
  const int64_t R = keys.head.R, E = keys.head.E;
  switch (keys.score) {
    case DecodeScore::kDot: std::copy(key, key + E, out); return;
    case DecodeScore::kRope:
      for (int64_t j = 0; j < R / 2; ++j) {
        const T a = key[j], b = key[j + R / 2];
        out[j] = a * T(cos(j)) - b * T(sin(j));
        out[j + R / 2] = b * T(cos(j)) + a * T(sin(j));
      }
      std::copy(key + R, key + E, out + R);
      return;
    case DecodeScore::kOfficial: {
      std::vector<T> t(key, key + E / 2);  // folding [tbar, tbar] gives tbar back
      t.insert(t.end(), key, key + E / 2);
      collinear_official_head<T>(nullptr, t.data(), R, E, cos, sin, nullptr, out);
      return;
    }
    case DecodeScore::kCollinear: collinear_key_head(keys.direction, keys.head, key, cos, sin, out);
  }
}

// Tokens with their angles and rules of visibility, and the queries as they stand towards them. Angles: cos and sin by
// (b, token, pair).
template <typename T>
struct DecodeSide {
  using Angle = std::function<T(int64_t b, int64_t n, int64_t j)>;
  AttentionSpec spec;
  int64_t tokens = 0;        // the first tokens of the cache
  TensorView<const T, 4> q;  // [B, N, H, E]
  Angle key_cos, key_sin;
  TensorView<const T, 3> decay{}, query_decay{};  // [B, H, tokens] [B, H, N], as in ref/attention.h
};

// keys [B, S, G, W], v [B, S, G, D], o [B, N, H, D] and lse [B, H, N] (may be empty) written.
template <typename T>
void decode_attention(std::span<const DecodeSide<T>> sides, const DecodeKeys& how, TensorView<const T, 4> keys,
                      TensorView<const T, 4> v, TensorView<T, 4> o, TensorView<T, 3> lse) {
  const int64_t E = how.head.E, B = keys.size(0), G = keys.size(2);
  std::vector<std::vector<T>> memory;
  std::vector<AttentionKeys<T>> parts;
  memory.reserve(sides.size());
  for (const DecodeSide<T>& side : sides) {
    std::vector<T>& out = memory.emplace_back(static_cast<size_t>(B * side.tokens * G * E));
    for (int64_t b = 0; b < B; ++b)
      for (int64_t n = 0; n < side.tokens; ++n) {
        const auto at = [b, n](const auto& angle) { return [&angle, b, n](int64_t j) { return angle(b, n, j); }; };
        for (int64_t g = 0; g < G; ++g)
          decode_key_head(how, keys.ptr(b, n, g), at(side.key_cos), at(side.key_sin),
                          out.data() + ((b * side.tokens + n) * G + g) * E);
      }
    const TensorView<const T, 4> turned{out.data(), {B, side.tokens, G, E}, {side.tokens * G * E, G * E, E, 1}};
    parts.push_back(
        {.spec = side.spec, .q = side.q, .k = turned, .decay = side.decay, .query_decay = side.query_decay});
  }
  attention_forward<T>(parts, v, o, lse);
}

// All tokens, cos(b, s, j) and sin(b, s, j) those of token s. decay [B, H, S]; empty: none.
template <typename T, typename Cos, typename Sin>
void decode_attention(const AttentionSpec& spec, const DecodeKeys& how, Cos cos, Sin sin, TensorView<const T, 4> q,
                      TensorView<const T, 4> keys, TensorView<const T, 4> v, TensorView<T, 4> o, TensorView<T, 3> lse,
                      TensorView<const T, 3> decay = {}) {
  DecodeSide<T> all{.spec = spec, .tokens = keys.size(1), .q = q, .key_cos = cos, .key_sin = sin, .decay = decay};
  if (!decay.empty())
    all.query_decay = {decay.ptr(0, 0) + (keys.size(1) - q.size(1)),
                       {decay.size(0), decay.size(1), q.size(1)},
                       {decay.stride(0), decay.stride(1), 1}};
  decode_attention<T>(std::span(&all, 1), how, keys, v, o, lse);
}

}  // namespace coca::ref

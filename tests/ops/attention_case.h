// tests/ops/attention_case.h - one call of attention: its shape, mask, documents and far keys.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <span>
#include <vector>

#include "coca/ops/attention.h"
#include "support/numerics.h"

namespace coca::ops {

struct Case {
  int64_t B, N, S, H, G, D;
  bool causal, alibi;
  int64_t window = 0;
  std::vector<int64_t> documents = {};  // lengths of packed documents, S in total; batch b starts with document b
  // Far keys: their number and range, and the largest distance and position that ALiBi uses for them. Or a symmetric
  // window.
  int64_t far = 0;
  FarRange far_range = FarRange::kBehindWindow;
  int64_t most_distance = 0, most_position = 0;
  Mask windowed = Mask::kSlidingWindow;
  int64_t E = 0;            // width of q and k; 0: D
  bool decay = false;       // log forget gates
  bool far_values = false;  // far keys have values of their own
  bool sink = false;        // o and lse get a share of kSink before the backward pass

  int64_t key_width() const { return E > 0 ? E : D; }
  Dims q_dims() const { return {B, N, H, key_width()}; }
  Dims k_dims() const { return {B, S, G, key_width()}; }
  Dims v_dims() const { return {B, S, G, D}; }
  Dims o_dims() const { return {B, N, H, D}; }
  Dims far_dims() const { return {B, far, G, key_width()}; }
  Dims far_v_dims() const { return {B, far, G, D}; }
};
inline std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << fmt::format("B{} N{} S{} H{} G{} E{} D{}{}{}{}{}{} window {} documents {} far {}", c.B, c.N, c.S, c.H,
                            c.G, c.key_width(), c.D, c.causal ? " causal" : "", c.alibi ? " alibi" : "",
                            c.decay ? " decay" : "", c.sink ? " sink" : "", c.far_values ? " far values" : "", c.window,
                            fmt::join(c.documents, ","), c.far);
}

// [B, N]: for each query, the start of its document; empty without documents.
inline Tensor documents_of(const Case& c) {
  if (c.documents.empty()) return {};
  Tensor starts({c.B, c.N}, DType::kI32);
  for (int64_t b = 0; b < c.B; ++b) {
    std::vector<int64_t> lengths = c.documents;
    std::rotate(lengths.begin(), lengths.begin() + b % static_cast<int64_t>(lengths.size()), lengths.end());
    int64_t start = 0;
    for (const int64_t length : lengths) {
      for (int64_t m = start; m < start + length; ++m)
        if (const int64_t n = m - (c.S - c.N); n >= 0)
          starts.values<int32_t>()[static_cast<size_t>(b * c.N + n)] = static_cast<int32_t>(start);
      start += length;
    }
    COCA_CHECK(start == c.S, "{} tokens in documents of {} keys", start, c.S);
  }
  return starts;
}

inline constexpr double kSink = 0.5;  // the score of a learnt sink, which has no value

// As a method with learnt sinks: o and lse get a key of score kSink and value 0.
template <typename T>
void add_sink(std::span<T> o, std::span<T> lse, const Case& c) {
  for (int64_t i = 0; i < c.B * c.H * c.N; ++i) {  // i runs over [B, H, N]
    T& row = lse[static_cast<size_t>(i)];
    const T more = std::log(T(1) + std::exp(T(kSink) - row)), share = std::exp(-more);
    row += more;
    const int64_t b = i / (c.H * c.N), h = i / c.N % c.H, n = i % c.N;
    for (int64_t d = 0; d < c.D; ++d) o[static_cast<size_t>(((b * c.N + n) * c.H + h) * c.D + d)] *= share;
  }
}

// [B, S, H]: sums of logarithms of gates, most near 1 and some near 0. The op sees it as [B, H, S].
inline Tensor decay_of(const Case& c) {
  if (!c.decay) return {};
  Tensor sums({c.B, c.S, c.H});
  const std::vector<float> gates = test::random_values(sums.numel(), 7, 0, 1);
  for (size_t i = 0, H = static_cast<size_t>(c.H); i < gates.size(); ++i) {
    const float step = gates[i] < 0.05f ? -4.0f : -0.2f * gates[i];
    sums.values<float>()[i] = step + (i % static_cast<size_t>(c.S * c.H) < H ? 0.0f : sums.values<float>()[i - H]);
  }
  return sums;
}
// [B, tokens, H] in memory as [B, H, tokens].
template <typename Ref>
Ref heads_before_tokens(Ref t) {
  if (t.empty()) return t;
  std::swap(t.shape[1], t.shape[2]);
  std::swap(t.strides[1], t.strides[2]);
  return t;
}
template <typename T>
TensorView<T, 3> heads_before_tokens(T* data, const Case& c) {
  return {data, {c.B, c.H, c.S}, {c.S * c.H, 1, c.H}};
}
template <typename T>
TensorView<T, 3> queries_of(TensorView<T, 3> keys, const Case& c) {
  return {keys.ptr(0, 0, c.S - c.N), {c.B, c.H, c.N}, keys.strides};
}

inline AttentionOptions options_of(const Case& c) {
  const Mask mask = c.window > 0 ? c.windowed : c.causal ? Mask::kCausal : Mask::kNone;
  return {.mask = mask, .window = c.window, .query_start = c.S - c.N};
}

}  // namespace coca::ops

// tests/ops/attention_case.h - one call of attention: its shape, mask, documents and far keys.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

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
  int64_t E = 0;  // width of q and k; 0: D

  int64_t key_width() const { return E > 0 ? E : D; }
  Dims q_dims() const { return {B, N, H, key_width()}; }
  Dims k_dims() const { return {B, S, G, key_width()}; }
  Dims v_dims() const { return {B, S, G, D}; }
  Dims o_dims() const { return {B, N, H, D}; }
  Dims far_dims() const { return {B, far, G, key_width()}; }
};
inline std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << fmt::format("B{} N{} S{} H{} G{} E{} D{}{}{} window {} documents {} far {}", c.B, c.N, c.S, c.H, c.G,
                            c.key_width(), c.D, c.causal ? " causal" : "", c.alibi ? " alibi" : "", c.window,
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

inline AttentionOptions options_of(const Case& c) {
  const Mask mask = c.window > 0 ? c.windowed : c.causal ? Mask::kCausal : Mask::kNone;
  return {.mask = mask, .window = c.window, .query_start = c.S - c.N};
}

}  // namespace coca::ops

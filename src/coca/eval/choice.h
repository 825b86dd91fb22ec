// coca/eval/choice.h - what logits choose, and what they think of the right token.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

namespace coca::eval {

inline constexpr int32_t kNoToken = -1;  // what logits that are NaN or infinite choose

// The largest logit (the lowest id among equals) and -log softmax of the target.
struct Choice {
  int32_t id = kNoToken;
  double nll = 0;
};
inline Choice choose(const float* logits, int64_t V, int32_t target) {
  int64_t best = 0;
  bool nan = false;
  for (int64_t v = 0; v < V; ++v) {
    nan = nan || std::isnan(logits[v]);
    if (logits[v] > logits[best]) best = v;
  }
  if (nan || !std::isfinite(logits[best])) return {kNoToken, std::nan("")};
  double sum = 0;
  for (int64_t v = 0; v < V; ++v) sum += std::exp(static_cast<double>(logits[v]) - static_cast<double>(logits[best]));
  return {static_cast<int32_t>(best),
          std::log(sum) + static_cast<double>(logits[best]) - static_cast<double>(logits[target])};
}

}  // namespace coca::eval

// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "coca/base/error.h"

namespace coca::infer {

void check_sampling(const SamplingOptions& o) {
  COCA_CHECK(o.temperature >= 0.0 && std::isfinite(o.temperature), "temperature {} must be at least 0", o.temperature);
  COCA_CHECK(o.top_k >= 0, "top-k {} must be at least 0 (0 keeps all)", o.top_k);
  COCA_CHECK(o.top_p > 0.0 && o.top_p <= 1.0, "top-p {} must be above 0 and at most 1", o.top_p);
}

int32_t argmax(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    COCA_CHECK_AS(kNumeric, !std::isnan(logits[i]), "logit {} is not a number", i);
    if (logits[i] > logits[best]) best = i;
  }
  return static_cast<int32_t>(best);
}

int32_t sample(std::span<const float> logits, const SamplingOptions& o, Rng& rng) {
  const int32_t best = argmax(logits);
  if (o.temperature == 0.0) return best;
  const double largest = logits[static_cast<size_t>(best)];
  std::vector<double> weight(logits.size());
  for (size_t i = 0; i < weight.size(); ++i) weight[i] = std::exp((logits[i] - largest) / o.temperature);

  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  // Ties by id, so that the choice is the same everywhere.
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    const double wa = weight[static_cast<size_t>(a)], wb = weight[static_cast<size_t>(b)];
    return wa != wb ? wa > wb : a < b;
  });
  size_t kept = order.size();
  if (o.top_k > 0) kept = std::min(kept, static_cast<size_t>(o.top_k));
  double total = 0;
  for (size_t i = 0; i < kept; ++i) total += weight[static_cast<size_t>(order[i])];
  if (o.top_p < 1.0) {
    double sum = 0;
    for (size_t i = 0; i < kept; ++i) {
      sum += weight[static_cast<size_t>(order[i])];
      if (sum >= o.top_p * total) {
        kept = i + 1;
        total = sum;
        break;
      }
    }
  }
  double left = rng.uniform() * total;
  for (size_t i = 0; i < kept; ++i) {
    left -= weight[static_cast<size_t>(order[i])];
    if (left < 0) return order[i];
  }
  return order[kept - 1];
}

}  // namespace coca::infer

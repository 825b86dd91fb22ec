// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/sampling.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "coca/base/error.h"

namespace coca::infer {

void check_sampling(const SamplingOptions& o) {
  COCA_CHECK(o.temperature >= 0.0 && std::isfinite(o.temperature), "temperature {} must be at least 0", o.temperature);
  COCA_CHECK(o.top_k >= 0, "top-k {} must be at least 0 (0 keeps all)", o.top_k);
  COCA_CHECK(o.top_p > 0.0 && o.top_p <= 1.0, "top-p {} must be above 0 and at most 1", o.top_p);
  COCA_CHECK(o.min_p >= 0.0 && o.min_p <= 1.0, "min-p {} must be between 0 and 1", o.min_p);
  COCA_CHECK(o.repetition_penalty > 0.0 && std::isfinite(o.repetition_penalty), "repetition-penalty {} must be positive", o.repetition_penalty);
}

void penalize_repetition(std::span<float> logits, std::span<const int32_t> seen, double penalty) {
  if (penalty == 1.0) return;
  std::vector<int32_t> ids(seen.begin(), seen.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  const auto factor = static_cast<float>(penalty);
  for (const int32_t id : ids) {
    COCA_CHECK(id >= 0 && static_cast<size_t>(id) < logits.size(), "token id {} is outside the {} logits", id, logits.size());
    float& logit = logits[static_cast<size_t>(id)];
    logit = logit > 0 ? logit / factor : logit * factor;
  }
}

int32_t argmax(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    COCA_CHECK_AS(kNumeric, !std::isnan(logits[i]), "logit {} is not a number", i);
    if (logits[i] > logits[best]) best = i;
  }
  return static_cast<int32_t>(best);
}

namespace {

struct Candidate {
  int32_t id;
  double weight;  // relative to the likeliest
};

// All of them, the likeliest first; only the first top_k where that is set. Ties by id, so that the choice is the same
// everywhere.
std::vector<Candidate> candidates(std::span<const float> logits, double largest, const SamplingOptions& o) {
  std::vector<Candidate> all(logits.size());
  for (size_t i = 0; i < all.size(); ++i)
    all[i] = {static_cast<int32_t>(i), std::exp((static_cast<double>(logits[i]) - largest) / o.temperature)};
  const auto likelier = [](const Candidate& a, const Candidate& b) { return a.weight != b.weight ? a.weight > b.weight : a.id < b.id; };
  const size_t kept = o.top_k > 0 ? std::min(all.size(), static_cast<size_t>(o.top_k)) : all.size();
  std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(kept), all.end(), likelier);
  all.resize(kept);
  return all;
}

}  // namespace

int32_t sample(std::span<const float> logits, const SamplingOptions& o, Rng& rng) {
  const int32_t best = argmax(logits);
  if (o.temperature == 0.0) return best;
  std::vector<Candidate> kept = candidates(logits, static_cast<double>(logits[static_cast<size_t>(best)]), o);
  const auto sum_of = [&] {
    double sum = 0;
    for (const Candidate& c : kept) sum += c.weight;
    return sum;
  };
  double total = sum_of();
  if (o.top_p < 1.0) {
    double sum = 0;
    for (size_t i = 0; i < kept.size(); ++i) {
      sum += kept[i].weight;
      if (sum < o.top_p * total) continue;
      kept.resize(i + 1);
      total = sum;
      break;
    }
  }
  if (o.min_p > 0.0) {
    const auto end = std::find_if(kept.begin(), kept.end(), [&](const Candidate& c) { return c.weight < o.min_p; });
    kept.erase(end, kept.end());
    total = sum_of();
  }
  double left = rng.uniform() * total;
  for (const Candidate& c : kept) {
    left -= c.weight;
    if (left < 0) return c.id;
  }
  return kept.back().id;
}

}  // namespace coca::infer

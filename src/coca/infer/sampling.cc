// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/sampling.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "coca/base/count.h"
#include "coca/base/error.h"

namespace coca::infer {

void check_sampling(const SamplingOptions& o) {
  COCA_CHECK(o.temperature >= 0.0 && std::isfinite(o.temperature), "temperature {} must be at least 0", o.temperature);
  COCA_CHECK(o.top_k >= 0, "top-k {} must be at least 0 (0 keeps all)", o.top_k);
  COCA_CHECK(o.top_p > 0.0 && o.top_p <= 1.0, "top-p {} must be above 0 and at most 1", o.top_p);
  COCA_CHECK(o.min_p >= 0.0 && o.min_p <= 1.0, "min-p {} must be between 0 and 1", o.min_p);
  COCA_CHECK(o.repetition_penalty >= 1e-6 && o.repetition_penalty <= 1e6, "repetition-penalty {} must be 1e-6 to 1e6",
             o.repetition_penalty);
}

void penalize_repetition(std::span<float> logits, std::span<const int32_t> seen, double penalty) {
  if (penalty == 1.0) return;
  std::vector<int32_t> ids(seen.begin(), seen.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  const auto factor = static_cast<float>(penalty);
  for (const int32_t id : ids) {
    COCA_CHECK(id >= 0 && static_cast<size_t>(id) < logits.size(), "token id {} is outside the {} logits", id,
               logits.size());
    float& logit = logits[static_cast<size_t>(id)];
    logit = logit > 0 ? logit / factor : logit * factor;
  }
}

int32_t argmax(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] > logits[best]) best = i;
    if (std::isnan(logits[i])) break;
  }
  COCA_CHECK_AS(kNumeric, std::isfinite(logits[best]),
                "the logit of token {} is {}: the model's numbers are not finite, so no token can be chosen", best,
                without_nan_sign(logits[best]));
  return static_cast<int32_t>(best);
}

namespace {

struct Candidate {
  int32_t id;
  double weight;  // relative to the likeliest token
};

// Candidates, the likeliest first, sorted only as far as they are accessed, since sampling needs only the first few of
// a large vocabulary. Ties are in order of ids, so that the choice is the same on every machine.
class Ranked {
 public:
  Ranked(std::span<const float> logits, double largest, double temperature) : all_(logits.size()) {
    for (size_t i = 0; i < all_.size(); ++i) {
      all_[i] = {static_cast<int32_t>(i), std::exp((static_cast<double>(logits[i]) - largest) / temperature)};
      total_ += all_[i].weight;
    }
  }

  size_t size() const { return all_.size(); }
  double total() const { return total_; }  // of all kept candidates
  const Candidate& operator[](size_t i) {
    if (i >= sorted_) sort(std::max<size_t>(64, 4 * i));
    return all_[i];
  }
  void keep(size_t count) {  // keeps the first `count` candidates
    if (count >= all_.size()) return;
    sort(count);
    all_.resize(count);
    sorted_ = count;
    total_ = 0;
    for (const Candidate& c : all_) total_ += c.weight;
  }

 private:
  // Afterwards at least the first `count` are in order, and all others follow.
  void sort(size_t count) {
    if (count <= sorted_) return;
    const auto likelier = [](const Candidate& a, const Candidate& b) {
      return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
    };
    const auto begin = all_.begin() + static_cast<std::ptrdiff_t>(sorted_);
    const auto end = all_.begin() + static_cast<std::ptrdiff_t>(std::min(count, all_.size()));
    if (end != all_.end()) std::nth_element(begin, end, all_.end(), likelier);
    std::sort(begin, end, likelier);
    sorted_ = static_cast<size_t>(end - all_.begin());
  }

  std::vector<Candidate> all_;
  double total_ = 0;
  size_t sorted_ = 0;
};

}  // namespace

int32_t sample(std::span<const float> logits, const SamplingOptions& o, Rng& rng) {
  const int32_t best = argmax(logits);
  if (o.temperature == 0.0) return best;
  Ranked ranked(logits, static_cast<double>(logits[static_cast<size_t>(best)]), o.temperature);
  if (o.top_k > 0) ranked.keep(static_cast<size_t>(o.top_k));
  if (o.top_p < 1.0) {
    const double wanted = o.top_p * ranked.total();
    size_t count = 0;
    for (double sum = 0; count < ranked.size() && sum < wanted; ++count) sum += ranked[count].weight;
    ranked.keep(std::max<size_t>(count, 1));
  }
  if (o.min_p > 0.0) {
    size_t count = 0;
    while (count < ranked.size() && ranked[count].weight >= o.min_p) ++count;
    ranked.keep(count);
  }
  double left = rng.uniform() * ranked.total();
  for (size_t i = 0; i < ranked.size(); ++i) {
    left -= ranked[i].weight;
    if (left < 0) return ranked[i].id;
  }
  return ranked[ranked.size() - 1].id;
}

}  // namespace coca::infer

// coca/infer/sampling.h - chooses the next token from logits.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "coca/base/rng.h"

namespace coca::infer {

struct SamplingOptions {
  double temperature = 1.0;  // 0: greedy (the largest logit; the lowest id among equals)
  int64_t top_k = 0;         // keep the k most likely; 0: all
  double top_p = 1.0;        // of those, keep the smallest set whose probability reaches p
  double min_p = 0.0;        // of those, keep tokens at least min_p times as likely as the most likely
  // Divides the logits of tokens seen before by this, or multiplies negative ones, also when greedy (Keskar et al.
  // 2019). 1: no penalty.
  double repetition_penalty = 1.0;
};

// Throws for a negative temperature, p outside (0, 1], min_p outside [0, 1], negative k or a penalty that is not
// positive.
void check_sampling(const SamplingOptions&);
// Each id in `seen` is penalized once.
void penalize_repetition(std::span<float> logits, std::span<const int32_t> seen, double penalty);
// Error (kNumeric) for a logit that is NaN or infinite; those that are -inf are never chosen.
int32_t argmax(std::span<const float> logits);
// Throws as argmax(). The caller has already applied the penalty.
int32_t sample(std::span<const float> logits, const SamplingOptions&, Rng&);

}  // namespace coca::infer

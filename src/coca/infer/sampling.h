// coca/infer/sampling.h - the next token from logits.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "coca/base/rng.h"

namespace coca::infer {

struct SamplingOptions {
  double temperature = 1.0;  // 0: greedy (the largest logit; the lowest id among equals)
  int64_t top_k = 0;         // keep the k most likely; 0: all
  double top_p = 1.0;        // keep the smallest set of tokens whose probability reaches p
};

void check_sampling(const SamplingOptions&);  // throws for a negative temperature, p outside (0, 1], negative k
int32_t argmax(std::span<const float> logits);
// Throws Error kNumeric when a logit is NaN.
int32_t sample(std::span<const float> logits, const SamplingOptions&, Rng&);

}  // namespace coca::infer

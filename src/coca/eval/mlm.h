// coca/eval/mlm.h - how well a bidirectional model predicts masked tokens, by window length. Documents are cut into
// adjacent windows of `length` tokens; a remainder at the end is skipped. In each window, tokens are masked as in
// training (data/masking.h). The mask depends on (seed, window) alone, so models with the same tokenizer predict the
// same tokens.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "coca/dist/communicator.h"
#include "coca/model/params.h"
#include "coca/tensor/context.h"

namespace coca::eval {

struct MlmOptions {
  std::vector<int64_t> lengths;
  int64_t max_windows = 0;  // of each length, spread evenly over all there are; 0: all
  int64_t seed = 0;
  int64_t batch_tokens = 8192;                // windows run together up to about this many tokens
  std::optional<model::RopeScaling> scaling;  // instead of the spec's
  std::function<void(int64_t length, int64_t done_tokens, int64_t total_tokens)>
      progress;                               // of all lengths; may be empty
  dist::Communicator& ranks = dist::alone();  // who share the windows; all get the same results
};

struct MlmResult {
  int64_t length = 0, windows = 0, masked_tokens = 0;
  int64_t planned_windows = 0;  // more than `windows` where the measurement ended within this length
  double nll = 0;               // mean over the masked tokens, in nats
  double perplexity = 0;        // exp(nll)
  double seconds = 0;

  bool whole() const { return windows == planned_windows; }
};

// vocabulary: that of the tokenizer; random tokens are drawn below it. One result per length. Throws Error for a causal
// model and for lengths that no document has, and kInterrupted on a request to stop.
std::vector<MlmResult> masked_perplexity(Context&, const model::ModelSpec&, const model::Weights&,
                                         std::span<const std::vector<int32_t>> documents, int32_t vocabulary,
                                         const MlmOptions&);
// The same, but each length is added to `results` when it is done; after an error, a partly finished length is added
// too.
void masked_perplexity(Context&, const model::ModelSpec&, const model::Weights&,
                       std::span<const std::vector<int32_t>> documents, int32_t vocabulary, const MlmOptions&,
                       std::vector<MlmResult>& results);

}  // namespace coca::eval

// coca/train/batches.h - training batches as a pure function of (config, step): text windows, and among them the
// stated share of windows that teach the passkey task (all of them in the first steps, if asked for).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/data/sampler.h"
#include "coca/data/token_file.h"
#include "coca/tensor/tensor.h"
#include "coca/text/tokenizer.h"
#include "coca/train/config.h"

namespace coca::train {

class Batches {
 public:
  // The token file and the tokenizer must outlive this.
  Batches(const TrainConfig&, const data::TokenFile&, const text::Tokenizer&);

  // ids and targets [B, N] i32 of micro-batch `part` of `step`: written.
  void fill(int64_t step, int64_t part, Tensor& ids, Tensor& targets) const;

 private:
  TrainConfig config_;
  const text::Tokenizer& tokenizer_;
  data::WindowSampler sampler_;
};

}  // namespace coca::train

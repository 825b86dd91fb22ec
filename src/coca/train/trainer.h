// coca/train/trainer.h - the training loop: batches, forward and backward, update, validation, metrics, checkpoints.
// A run is a pure function of its config and data: resumed from any checkpoint it ends in the same bits.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "coca/model/decoder.h"
#include "coca/train/batches.h"
#include "coca/train/checkpoint.h"

namespace coca::train {

class MetricsFile;

struct TrainData {
  const data::TokenFile& tokens;
  const data::TokenFile* validation = nullptr;  // null: no validation
  const text::Tokenizer& tokenizer;
};

struct StepReport {
  int64_t step = 0, steps = 0;  // steps done, of all
  double loss = 0, learning_rate = 0, grad_norm = 0;
  std::optional<double> validation_loss;
  double tokens_per_second = 0;  // of this run so far
  int64_t skipped = 0;
};

struct TrainSummary {
  int64_t steps = 0, tokens = 0, skipped = 0, parameters = 0;
  double final_loss = 0;         // mean of the last logged interval; NaN where no loss was finite
  std::optional<double> validation_loss;
  double seconds = 0, tokens_per_second = 0;  // validation and checkpoints excluded
  size_t activation_bytes = 0;
};

enum class Start : uint8_t { kFresh, kResume };  // kResume: from the newest checkpoint, fresh when there is none

class Trainer {
 public:
  // Builds model and optimizer. A fresh start refuses an out folder that already holds checkpoints.
  Trainer(const TrainConfig&, const TrainData&, Start);
  Trainer(const Trainer&) = delete;  // the decoders keep references to members
  Trainer& operator=(const Trainer&) = delete;

  // Trains to config.steps; writes out/metrics.csv, checkpoints and out/model. on_step sees every step.
  // On stop_requested(): saves a checkpoint and throws Error{kInterrupted}. After max_bad_steps non-finite steps in
  // a row: throws Error{kNumeric}; the last checkpoint stays.
  TrainSummary run(const std::function<void(const StepReport&)>& on_step = {});

  const model::ModelSpec& spec() const { return spec_; }
  const model::ParamStore& params() const { return params_; }
  int64_t first_step() const { return state_.step; }
  size_t activation_bytes() const { return decoder_.activation_bytes(); }

 private:
  double forward_backward(int64_t step);
  double validate();
  void one_step(StepReport&);
  void resume(const std::filesystem::path& checkpoint);
  void log_row(MetricsFile&, const StepReport&, TrainSummary&);
  CheckpointParts parts();
  const model::Weights& weights() const { return (copy_ ? *copy_ : params_).weights(); }

  TrainConfig config_;
  const TrainData data_;
  model::ModelSpec spec_;
  Context context_;
  model::ParamStore params_, grads_;
  optim::AdamW optimizer_;
  model::TrainingDecoder decoder_;
  std::unique_ptr<model::ParamStore> copy_;  // what the model runs with in bf16; params_ are the master weights
  std::unique_ptr<model::Decoder> validator_;
  Batches batches_;
  TrainState state_;
  Tensor ids_, targets_;
};

// The tokenizer's vocabulary, rounded up so that matrix products see whole vectors.
int64_t padded_vocabulary(const text::Tokenizer&);

}  // namespace coca::train

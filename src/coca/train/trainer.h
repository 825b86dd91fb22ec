// coca/train/trainer.h - pretraining: a model with random weights, trained on a text by the loop (loop.h).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>

#include "coca/train/loop.h"

namespace coca::train {

struct TrainData {
  const data::TokenFile& tokens;
  const data::TokenFile* validation = nullptr;  // null: no validation
  const text::Tokenizer& tokenizer;
};

// The model of a config and a tokenizer.
model::ModelSpec trained_spec(const TrainConfig&, const text::Tokenizer&);
// The checks of a Trainer that need no text: options, tasks that do not fit into a window, and those of
// check_start in loop.h. Writes nothing.
std::filesystem::path check_start(const TrainConfig&, const text::Tokenizer&, Start, int ranks);
// The warnings of a Trainer about its options (loop.h), for a dry run.
void warn_of_start(const TrainConfig&, const std::filesystem::path& checkpoint, int ranks);
// Its checks of the text. A part of the text is enough if it is longer than a window.
void check_data(const TrainConfig&, const TrainData&);

class Trainer {
 public:
  // Builds model and optimizer. A fresh start refuses an out folder that already holds checkpoints. Several ranks
  // construct it together, with the same config and data. claim: see Loop.
  Trainer(const TrainConfig&, const TrainData&, Start, dist::Communicator& ranks = dist::alone(),
          Claim claim = nullptr);

  TrainSummary run(const std::function<void(const StepReport&)>& on_step = {}) { return loop_.run(on_step); }

  const model::ModelSpec& spec() const { return loop_.spec(); }
  const model::ParamStore& params() const { return loop_.params(); }
  int64_t first_step() const { return loop_.first_step(); }
  size_t activation_bytes() const { return loop_.activation_bytes(); }

 private:
  TrainConfig config_;  // with micro-batches that fit into slices
  Batches batches_;
  std::optional<TextValidation> validation_;
  std::optional<data::TaskMaker> maker_;
  std::optional<TaskBatches> task_batches_;  // the loop's batches, with tasks
  std::optional<TaskExam> exam_;
  std::optional<MaskedBatches> masked_;  // the loop's batches, for a bidirectional model
  std::optional<MaskedValidation> masked_validation_;
  Loop loop_;
};

// The size of the tokenizer's vocabulary, plus a mask token if the direction needs one and the tokenizer has none,
// rounded up so that matrix products have whole vectors.
int64_t padded_vocabulary(const text::Tokenizer&, model::Direction = model::Direction::kCausal);

}  // namespace coca::train

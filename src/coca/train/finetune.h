// coca/train/finetune.h - fine-tuning: a loaded model is trained further by the loop (loop.h) on examples or text. All
// or selected parameters are trained, in one or more stages. Guide: docs/finetune.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "coca/formats/model_folder.h"
#include "coca/train/finetune_config.h"

namespace coca::train {

// Examples, or text; all must outlive the run.
struct FinetuneData {
  const text::Tokenizer& tokenizer;
  const data::TokenDocuments* examples = nullptr;
  const data::TokenDocuments* validation_examples = nullptr;
  const data::TokenFile* text = nullptr;
  const data::TokenFile* validation_text = nullptr;
  std::shared_ptr<formats::ModelFolder> model;  // the config's model folder, if it has been opened before
  CompleteFolder complete = {};                 // for checkpoints and the result; may be empty
};

// The spec of the model folder, with the window length of the run; data and stages are made for it.
struct FinetuneTarget {
  std::shared_ptr<formats::ModelFolder> source;
  model::ModelSpec spec;
  int64_t length = 0;
  std::optional<int32_t> bos;  // before each example
};
FinetuneTarget finetune_target(const FinetuneConfig&, const text::Tokenizer&,
                               std::shared_ptr<formats::ModelFolder> source = nullptr);  // null: is opened

// Everything of a run but its weights: data, steps and adapter. Throws the errors of a run that cannot begin.
class FinetuneSetup {
 public:
  FinetuneSetup(const FinetuneConfig&, const FinetuneData&, int ranks);
  FinetuneSetup(const FinetuneSetup&) = delete;  // parts keep references to others
  FinetuneSetup& operator=(const FinetuneSetup&) = delete;

  const FinetuneTarget& target() const { return target_; }
  const std::optional<data::PackedWindows>& windows() const { return windows_; }  // of examples
  const BatchSource& batches() const { return *batches_; }
  const ValidationSource* validation() const { return validation_.get(); }
  const LoopOptions& loop_options() const { return options_; }

 private:
  void pack(const FinetuneConfig&, const FinetuneData&);
  void cut_text(const FinetuneConfig&, const FinetuneData&);
  void mask(const FinetuneConfig&, const FinetuneData&);

  FinetuneTarget target_;
  std::optional<data::PackedWindows> windows_, validation_windows_;
  std::unique_ptr<BatchSource> plain_, batches_;  // plain: what batches_ masks for a bidirectional model
  std::unique_ptr<ValidationSource> plain_validation_, validation_;
  LoopOptions options_;
};

class Finetuner {
 public:
  // Loads the model, or the newest checkpoint. A fresh start refuses an out folder that already holds checkpoints.
  // claim: see Loop.
  Finetuner(const FinetuneConfig&, const FinetuneData&, Start, dist::Communicator& ranks = dist::alone(),
            Claim claim = nullptr);

  TrainSummary run(const std::function<void(const StepReport&)>& on_step = {}) { return loop_->run(on_step); }

  const Loop& loop() const { return *loop_; }
  const std::vector<Stage>& stages() const { return setup_.loop_options().stages; }
  int64_t length() const { return setup_.target().length; }
  const std::optional<data::PackedWindows>& windows() const { return setup_.windows(); }

 private:
  FinetuneSetup setup_;
  std::unique_ptr<Loop> loop_;
};

}  // namespace coca::train

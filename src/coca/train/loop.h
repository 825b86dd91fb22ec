// coca/train/loop.h - the training loop: forward and backward, update, validation, metrics, checkpoints, in one or more
// stages. Pretraining (trainer.h) and fine-tuning (finetune.h) give it models, data and stages. A run is a pure
// function of its config and data: resumed from any checkpoint, it ends in the same bits. Several ranks can run it
// together; each has a share of every step's windows and of the optimizer's state (docs/parallel.md).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "coca/io/lock.h"
#include "coca/train/step.h"

namespace coca::train {

class MetricsFile;

struct StepReport {
  int64_t step = 0, steps = 0;  // steps done, and steps in all
  int64_t stage = 0;            // the stage of this step, from 0
  double loss = 0, learning_rate = 0, grad_norm = 0;
  std::optional<double> validation_loss;
  std::vector<TaskScore> tasks;  // of the exam, if this step has one
  double tokens_per_second = 0;  // of this run so far
  int64_t skipped = 0;
};

struct TrainSummary {
  int64_t steps = 0, tokens = 0, skipped = 0, parameters = 0;
  double final_loss = 0;  // mean of the last logged interval; NaN if no loss was finite
  std::optional<double> validation_loss;
  double seconds = 0, tokens_per_second = 0;  // validation and checkpoints excluded
  size_t activation_bytes = 0;
};

// The lock of an out folder.
using Claim = std::shared_ptr<io::FolderLock>;

enum class Start : uint8_t { kFresh, kResume };  // kResume: from the newest checkpoint, or fresh if there is none

// The checkpoint from which a run in this folder begins, "" for none. Error if a fresh run would begin in the folder of
// another run, or if all checkpoints of the run to be resumed are damaged or missing. Writes nothing.
std::filesystem::path check_folder(const std::filesystem::path& out, Start);
// The checks of a loop that need neither data nor memory: sizes that exceed all memory, slices that cannot be divided
// among this many ranks, the folder, and its checkpoint's step. Returns what check_folder returns.
std::filesystem::path check_start(const LoopOptions&, const model::ModelSpec&, Start, int ranks);
// The warnings of a loop about its options: a warm-up longer than a stage, and what differs from the run in
// `checkpoint` ("": none). A Loop gives them itself; this is for a dry run.
void warn_of_start(const LoopOptions&, const std::filesystem::path& checkpoint);

class Loop {
 public:
  // Holds the lock of the out folder during its lifetime: `claim`, which rank 0's caller has taken, or else its own.
  // Error kIo if another process trains there.
  // A fresh start refuses an out folder that already holds checkpoints, and calls `initialise` for the weights.
  // Otherwise weights, moments and state are those of the newest intact checkpoint. With an adapter, the frozen
  // weights, in the run's precision, always come from `initialise`.
  using Initialise = std::function<void(model::ParamStore&)>;
  // All ranks construct it together, and make every call together; `ranks` must outlive it.
  Loop(LoopOptions, const model::ModelSpec&, const LoopData&, Start, const Initialise&,
       dist::Communicator& ranks = dist::alone(), Claim claim = nullptr);
  Loop(const Loop&) = delete;  // its members refer to each other
  Loop& operator=(const Loop&) = delete;

  // Trains to the last step of the last stage; writes out/metrics.csv, checkpoints and out/model (or out/adapter).
  // on_step is called for every step, on every rank. On stop_requested() of any rank, within a step or a validation:
  // saves a checkpoint of the last whole step and throws Error{kInterrupted}. After max_bad_steps non-finite steps in a
  // row: throws Error{kNumeric}; the last checkpoint remains. It throws the same if parameters are not finite when a
  // checkpoint is due. It also does, and writes no model, if no step was good, if the last step was not, or if the loss
  // after the last update is not finite.
  TrainSummary run(const std::function<void(const StepReport&)>& on_step = {});

  const model::ModelSpec& spec() const { return spec_; }
  const model::ParamStore& params() const { return model_.params(); }
  int64_t first_step() const { return state_.step; }
  int64_t steps() const { return steps_; }
  int64_t trained_parameters() const { return step_.trained_parameters(); }  // of the current stage
  size_t activation_bytes() const { return step_.activation_bytes(); }

 private:
  void begin_stage(int64_t stage);
  int64_t stage_at(int64_t step) const;  // the stage of the step that follows `step` steps
  int64_t stage_start(int64_t stage) const;
  double rate_after(int64_t step) const;
  bool row_is_to_come();
  StepReport report_of(const RowToCome&) const;
  bool measures() const { return data_.validation || data_.exam; }
  bool measure(StepReport&);
  std::optional<double> checked_validation(double training_loss);
  std::string newest_text() const;  // which checkpoint is the newest, for messages
  std::string stopped_text() const;
  std::filesystem::path result_folder() const;
  void require_sound_weights();
  void require_result();
  bool one_step(StepReport&);
  [[noreturn]] void stop(MetricsFile*);
  void resume(const std::filesystem::path& checkpoint);
  double end_interval();
  enum class Save : uint8_t { kMust, kMay };
  void save(MetricsFile*, Save);
  bool first_rank() const { return ranks_.rank() == 0; }
  bool due(int64_t interval) const { return interval > 0 && state_.step % interval == 0; }
  CheckpointParts parts();

  const LoopOptions options_;
  const LoopData data_;
  dist::Communicator& ranks_;
  Claim claim_;  // rank 0's
  const model::ModelSpec spec_;
  TrainedModel model_;
  Step step_;
  TrainState state_;
  int64_t saved_step_ = -1;  // of the newest checkpoint that this run wrote or began from
  int64_t steps_ = 0, stage_ = -1;
};

}  // namespace coca::train

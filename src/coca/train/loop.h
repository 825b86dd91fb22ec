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
#include "coca/model/decoder.h"
#include "coca/model/ring_attention.h"
#include "coca/train/batches.h"
#include "coca/train/checkpoint.h"
#include "coca/train/gradient_sum.h"

namespace coca::train {

class MetricsFile;

struct StepReport {
  int64_t step = 0, steps = 0;  // steps done, and steps in all
  int64_t stage = 0;            // the stage of this step, from 0
  double loss = 0, learning_rate = 0, grad_norm = 0;
  std::optional<double> validation_loss;
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

enum class Start : uint8_t { kFresh, kResume };  // kResume: from the newest checkpoint, or fresh if there is none

// A number of steps with their own trained parameters, optimizer (its moments begin at zero) and schedule.
struct Stage {
  std::vector<std::string> train;  // patterns (model/select.h); none: everything
  int64_t steps = 0;
  optim::Schedule schedule;  // over the steps of the stage
  optim::AdamWOptions adamw;
};

struct LoopOptions {
  BatchShape shape;
  std::vector<Stage> stages;
  model::Recompute recompute = model::Recompute::kNone;
  model::Precision precision = model::Precision::kF32;
  int64_t slices = 1;  // of a step; no micro-batch of `shape` spans two slices (shape_in_slices)
  enum class Share : uint8_t {
    kWindows,
    kTokens
  } share = Share::kWindows;  // of ranks; kTokens: one slice, every rank's tokens of all windows
  int64_t max_bad_steps = 10, log_interval = 10, validation_interval = 0;
  int64_t validation_windows = 64;  // per validation, spread evenly over all windows; the same ones every time
  int64_t checkpoint_interval = 0;
  CheckpointPlan checkpoints;
  std::filesystem::path tensorboard;        // folder for event files; empty: none
  std::shared_ptr<model::Adapter> adapter;  // trained instead of the parameters, which do not change; null: none
  uint64_t dropout_seed = 0;                // of the adapter
};

// The options that pretraining and fine-tuning have in common. `given`: as they are saved; `c`: with micro-batches cut
// into slices, as they are run.
template <class Config>
LoopOptions loop_options_of(const Config& c, const Config& given, const BatchShape& shape, std::vector<Stage> stages) {
  return {.shape = shape,
          .stages = std::move(stages),
          .recompute = c.recompute,
          .precision = c.precision,
          .slices = c.slices,
          .share = c.context_parallel ? LoopOptions::Share::kTokens : LoopOptions::Share::kWindows,
          .max_bad_steps = c.max_bad_steps,
          .log_interval = c.log_interval,
          .validation_interval = c.validation_interval,
          .validation_windows = c.validation_windows,
          .checkpoint_interval = c.checkpoint_interval,
          .checkpoints = checkpoint_plan(given),
          .tensorboard = c.tensorboard};
}

// Both must outlive the loop, as must the tokenizer.
struct LoopData {
  const BatchSource& batches;
  const ValidationSource* validation = nullptr;  // null: no validation
  const text::Tokenizer& tokenizer;
  int64_t tokens = 0;  // identity of the data: a checkpoint can be resumed only with the same data
  std::string fingerprint;
};

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
  // Locks the out folder during its lifetime: Error kIo if another process trains there.
  // A fresh start refuses an out folder that already holds checkpoints, and calls `initialise` for the weights.
  // Otherwise weights, moments and state are those of the newest intact checkpoint. With an adapter, the frozen
  // weights, in the run's precision, always come from `initialise`.
  using Initialise = std::function<void(model::ParamStore&)>;
  // All ranks construct it together, and make every call together; `ranks` must outlive it.
  Loop(LoopOptions, const model::ModelSpec&, const LoopData&, Start, const Initialise&,
       dist::Communicator& ranks = dist::alone());
  Loop(const Loop&) = delete;  // the decoder keeps references to members
  Loop& operator=(const Loop&) = delete;

  // Trains to the last step of the last stage; writes out/metrics.csv, checkpoints and out/model (or out/adapter).
  // on_step is called for every step, on every rank. On stop_requested() of any rank: saves a checkpoint and throws
  // Error{kInterrupted}. After max_bad_steps non-finite steps in a row: throws Error{kNumeric}; the last checkpoint
  // remains. It throws the same if parameters are not finite when a checkpoint is due. It also does, and writes no
  // model, if no step was good, if the last step was not, or if the loss after the last update is not finite.
  TrainSummary run(const std::function<void(const StepReport&)>& on_step = {});

  const model::ModelSpec& spec() const { return spec_; }
  const model::ParamStore& params() const { return params_; }
  int64_t first_step() const { return state_.step; }
  int64_t steps() const { return steps_; }
  int64_t trained_parameters() const;  // of the current stage
  size_t activation_bytes() const { return decoder_.activation_bytes(); }

 private:
  void begin_stage(int64_t stage);
  int64_t stage_at(int64_t step) const;  // the stage of the step that follows `step` steps
  int64_t stage_start(int64_t stage) const;
  enum class Add : uint8_t { kToSum, kNot };
  bool shares_tokens() const { return ring_ != nullptr; }
  // This rank's tokens of ids_ and targets_: [B, n].
  std::pair<TensorRef, TensorRef> tokens_here();
  void fill(int64_t step, int64_t part);                      // ids_, targets_, starts_, positions_
  std::pair<int64_t, int64_t> parts_of(int64_t slice) const;  // its micro-batches: the first, and one past the last
  double slice(int64_t step, int64_t slice, Add);
  double forward_backward(int64_t step);
  optim::UpdateReport update(double learning_rate);
  std::string locate_nonfinite(int64_t step);
  std::string nonfinite_here(int64_t step);
  double validate();
  double checked_validation(double training_loss);
  std::string newest_text() const;  // which checkpoint is the newest, for messages
  std::string stopped_text() const;
  std::filesystem::path result_folder() const;
  bool last_step_stays_finite();
  void require_sound_weights();
  void require_result();
  void one_step(StepReport&);
  void resume(const std::filesystem::path& checkpoint);
  void log_row(MetricsFile*, const StepReport&, TrainSummary&);
  enum class Save : uint8_t { kMust, kMay };
  void save(MetricsFile*, Save);
  bool first_rank() const { return ranks_.rank() == 0; }
  bool due(int64_t interval) const { return interval > 0 && state_.step % interval == 0; }
  CheckpointParts parts();
  void bind_weights();
  model::TensorStore& master() { return options_.adapter ? options_.adapter->tensors() : params_; }
  model::DrawnPositions drawn(int64_t step) const {
    return {.positions = positions_, .scaling_length = data_.batches.drawn_length(step)};
  }
  TensorRef starts() const { return starts_.empty() ? TensorRef() : starts_.ref(); }

  LoopOptions options_;
  const LoopData data_;
  dist::Communicator& ranks_;
  std::optional<io::FolderLock> lock_;  // of the out folder; rank 0's
  model::ModelSpec spec_;
  int64_t steps_ = 0, stage_ = -1;
  Context context_;
  model::ParamStore params_;                 // fp32, the master weights; under an adapter in the run's precision
  std::unique_ptr<model::ParamStore> copy_;  // what the model runs with in bf16
  std::unique_ptr<model::TensorStore> adapter_copy_;  // the same for the adapter
  model::Weights weights_;                            // the tensors with which the model runs
  std::unique_ptr<model::TensorStore> grads_;         // of the stage's parameters
  model::MutWeights grad_tensors_;                    // the same, by place in the model
  std::unique_ptr<optim::AdamW> optimizer_;
  std::unique_ptr<GradientSum> sum_;            // with several ranks or slices
  std::unique_ptr<model::RingAttention> ring_;  // if the tokens of a window are split over ranks
  model::TrainingDecoder decoder_;
  TrainState state_;
  Tensor ids_, targets_, starts_;             // of whole windows
  std::vector<int32_t> my_ids_, my_targets_;  // this rank's tokens of them, with a ring
  std::vector<double> positions_;             // [B, N], if the batches draw them
};

}  // namespace coca::train

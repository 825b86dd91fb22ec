// coca/train/loop_options.h - the options and data of a training loop: stages, the shape of a step, data.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "coca/model/decoder.h"
#include "coca/optim/optimizer.h"
#include "coca/optim/schedule.h"
#include "coca/train/batches.h"
#include "coca/train/checkpoint.h"
#include "coca/train/tasks.h"

namespace coca::train {

// A number of steps with its own trained parameters, optimizer (whose moments start at zero) and schedule.
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
  int64_t slices = 1;  // per step; no micro-batch of `shape` spans two slices (shape_in_slices)
  // How ranks divide the work: kWindows by windows; kTokens: a single slice, and every rank has some tokens of each
  // window.
  enum class Share : uint8_t { kWindows, kTokens } share = Share::kWindows;
  int64_t max_bad_steps = 10, log_interval = 10, validation_interval = 0;
  int64_t validation_windows = 64;  // per validation, spread evenly over all windows; always the same ones
  int64_t checkpoint_interval = 0;
  CheckpointPlan checkpoints;
  std::filesystem::path tensorboard;        // folder for event files; empty: none
  std::shared_ptr<model::Adapter> adapter;  // trained instead of the parameters, which do not change; null: none
  uint64_t dropout_seed = 0;                // of the adapter's dropout
};

// The options shared by pretraining and fine-tuning. `given`: as saved; `c`: as run, with micro-batches split into
// slices.
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
  int64_t tokens = 0;  // 0: no text; identifies the data: a checkpoint can be resumed only with the same data
  std::string fingerprint;
  CompleteFolder complete = {};    // for checkpoints and the result
  const TaskExam* exam = nullptr;  // taken with every validation, or in its place; null: none
};

}  // namespace coca::train

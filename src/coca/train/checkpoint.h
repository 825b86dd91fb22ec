// coca/train/checkpoint.h - checkpoints as folders: config.json, model.safetensors, tokenizer (so that each is a model
// for eval and generate), the optimizer's moments, train_state.json, train_config.json, manifest.json. A folder appears whole
// or not at all; the manifest's checksums tell what happened to it later. Layout: docs/formats.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>

#include "coca/model/adapter.h"
#include "coca/model/params.h"
#include "coca/optim/optimizer.h"
#include "coca/text/tokenizer.h"
#include "coca/train/config.h"

namespace coca::train {

struct TrainState {
  int64_t step = 0;            // steps done
  int64_t updates = 0;         // of them applied
  int64_t skipped = 0;         // of them skipped for non-finite values
  int64_t bad_in_a_row = 0;
  int64_t tokens = 0;          // trained on so far
  double seconds = 0;          // of training, over all runs
  double interval_loss = 0;    // sum and number of the finite losses since the last row of metrics.csv
  int64_t interval_steps = 0;
  int64_t data_tokens = 0;     // size, tokenizer and content of the training data, to notice other data on resume
  std::string tokenizer_fingerprint;
  std::string data_fingerprint;  // empty: a checkpoint from before it was saved
  std::string base_fingerprint;  // of the frozen model under an adapter; empty without one
};

// Options of a run's length and step size; both kinds of training have them.
inline const std::set<std::string> kAdjustable = {"steps", "epochs", "learning_rate", "min_learning_rate", "warmup_steps", "decay", "weight_decay", "clip_norm"};

// Where checkpoints go, and the options that are saved beside each.
struct CheckpointPlan {
  std::filesystem::path out;
  int64_t keep = 2;  // newest ones
  std::string config_name = "train_config.json";
  nlohmann::ordered_json config;
  std::set<std::string> harmless;  // options that may change on resume without another result
  std::set<std::string> adjustable;  // those that may change and have another one: length and step size of the training
};

struct CheckpointParts {
  const model::ModelSpec& spec;
  model::ParamStore& params;
  optim::AdamW& optimizer;
  const text::Tokenizer& tokenizer;
  model::Adapter* adapter = nullptr;  // when one is trained: saved and loaded in the place of the parameters
  dist::Communicator& ranks = dist::alone();  // who call what saves and loads together; the folder is one that all see
};

std::filesystem::path checkpoint_root(const std::filesystem::path& out);
// The newest complete checkpoint under out/checkpoints, if any.
std::optional<std::filesystem::path> latest_checkpoint(const std::filesystem::path& out);
// The newest whose files are as they were written, all of them read; a warning for each newer one that is damaged. Error
// kBadFile where there are checkpoints and all are damaged.
std::optional<std::filesystem::path> latest_sound_checkpoint(const std::filesystem::path& out);

CheckpointPlan checkpoint_plan(const TrainConfig&);
// Writes out/checkpoints/step-<step> and removes all but the newest that are to be kept. Each rank writes the moments it owns
// (moments.h), rank 0 the rest.
void save_checkpoint(const CheckpointPlan&, const TrainState&, const CheckpointParts&);
// Step and all else that is not a tensor.
TrainState load_state(const std::filesystem::path& dir);
// Weights, moments and state, bit for bit. Throws for a folder whose config.json differs from the spec.
enum class Moments : uint8_t { kLoad, kLeave };  // kLeave: a new stage begins here
TrainState load_checkpoint(const std::filesystem::path& dir, const CheckpointParts&, Moments = Moments::kLoad);
// The options that the run in this folder was started with: of its newest checkpoint, or of a run that has none yet; with the
// file they come from. nullopt: no run.
std::optional<std::pair<std::filesystem::path, nlohmann::json>> saved_options(const std::filesystem::path& out, const std::string& config_name);
// Error naming the flag of the first option that differs from the saved ones and may not change in a run.
void check_resumed_options(const std::filesystem::path& file, const nlohmann::json& saved, const CheckpointPlan&);
// Error where metrics or a model show that a run in this folder came to a checkpoint, and there is none any more.
void check_never_saved(const std::filesystem::path& out);
// Warns of each option that differs from the checkpoint's and is not harmless.
void warn_of_changes(const std::filesystem::path& dir, const CheckpointPlan&);
TrainConfig load_train_config(const std::filesystem::path& dir);

// A plain model folder (no optimizer), or with an adapter PEFT's files of it; by the calling rank alone.
void export_model(const std::filesystem::path& dir, const CheckpointParts&);

}  // namespace coca::train

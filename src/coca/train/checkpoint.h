// coca/train/checkpoint.h - checkpoints as folders: config.json, model.safetensors, tokenizer (so that each is a model
// for eval and generate), the optimizer's moments, train_state.json, train_config.json, manifest.json. A folder is
// either complete or absent; the checksums in the manifest show later damage. Layout: docs/formats.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <functional>
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

// Of a step whose checkpoint was written before its validation: what its row of metrics.csv needs besides.
struct RowToCome {
  double mean_loss = 0, loss = 0, grad_norm = 0;  // NaN if not finite
};

struct TrainState {
  int64_t step = 0;     // steps done
  int64_t updates = 0;  // steps that were applied
  int64_t skipped = 0;  // steps that were skipped because of non-finite values
  int64_t bad_in_a_row = 0;
  int64_t tokens = 0;        // trained on so far
  double seconds = 0;        // of training, over all runs
  double interval_loss = 0;  // sum, and below the number, of the finite losses since the last row of metrics.csv
  int64_t interval_steps = 0;
  int64_t model_step = 0;   // of out/model (or out/adapter); 0: none yet, or unknown
  int64_t data_tokens = 0;  // size, tokenizer and content of the training data, to notice other data on resume
  std::string tokenizer_fingerprint;
  std::string data_fingerprint;  // empty in old checkpoints, which did not save it
  std::string base_fingerprint;  // of the frozen model under an adapter; empty without one
  std::optional<RowToCome> row;  // a run resumed here begins with that validation
};

// Options for the length and step size of a run, shared by both kinds of training.
inline const std::set<std::string> kAdjustable = {"steps",        "epochs", "learning_rate", "min_learning_rate",
                                                  "warmup_steps", "decay",  "weight_decay",  "clip_norm"};

// Where checkpoints are written, and the options that are saved with each.
struct CheckpointPlan {
  std::filesystem::path out;
  int64_t keep = 2;  // newest ones
  std::string config_name = "train_config.json";
  nlohmann::ordered_json config;
  std::set<std::string> harmless;    // options that may change on resume and do not affect the result
  std::set<std::string> adjustable;  // options that may change and affect it: length and step size of the training
};

// Adds the other files of a model to a folder that has its weights and tokenizer, before the folder gets its name; may
// be empty. The calling rank does it alone.
using CompleteFolder = std::function<void(const std::filesystem::path& dir)>;

struct CheckpointParts {
  const model::ModelSpec& spec;
  model::ParamStore& params;
  optim::AdamW& optimizer;
  const text::Tokenizer& tokenizer;
  model::Adapter* adapter = nullptr;          // if an adapter is trained: saved and loaded instead of the parameters
  dist::Communicator& ranks = dist::alone();  // they save and load together, in a folder that all of them see
  CompleteFolder complete;
};

std::filesystem::path checkpoint_root(const std::filesystem::path& out);
// The newest complete checkpoint under out/checkpoints, if any.
std::optional<std::filesystem::path> latest_checkpoint(const std::filesystem::path& out);
// The newest checkpoint whose files are intact (all are read), with a warning for each newer one that is damaged. Error
// kBadFile if there are checkpoints and all are damaged.
std::optional<std::filesystem::path> latest_sound_checkpoint(const std::filesystem::path& out);

CheckpointPlan checkpoint_plan(const TrainConfig&);
// Writes out/checkpoints/step-<step> and removes older ones, except the newest `keep`. Each rank writes the moments it
// owns (moments.h); rank 0 writes everything else.
void save_checkpoint(const CheckpointPlan&, const TrainState&, const CheckpointParts&);
// The step and everything else that is not a tensor.
TrainState load_state(const std::filesystem::path& dir);
// Weights, moments and state, bit for bit. Throws for a folder whose config.json differs from the spec.
enum class Moments : uint8_t { kLoad, kLeave };  // kLeave: a new stage begins here
TrainState load_checkpoint(const std::filesystem::path& dir, const CheckpointParts&, Moments = Moments::kLoad);
// The options with which the run in this folder was started, from latest_sound_checkpoint (the one that is resumed) or,
// if it has none yet, from the run's own copy; with the file they come from. nullopt: no run.
std::optional<std::pair<std::filesystem::path, nlohmann::json>> saved_options(const std::filesystem::path& out,
                                                                              const std::string& config_name);
// Error naming the flag of the first option that differs from the saved one and may not change during a run.
void check_resumed_options(const std::filesystem::path& file, const nlohmann::json& saved, const CheckpointPlan&);
// Error if metrics or a model show that a run in this folder had written a checkpoint, and there is none any more.
void check_never_saved(const std::filesystem::path& out);
// Warns about each option that differs from the checkpoint's and is not harmless.
void warn_of_changes(const std::filesystem::path& dir, const CheckpointPlan&);
TrainConfig load_train_config(const std::filesystem::path& dir);

// Writes a plain model folder (no optimizer), or PEFT's files if there is an adapter; done by the calling rank alone.
void export_model(const std::filesystem::path& dir, const CheckpointParts&);

}  // namespace coca::train

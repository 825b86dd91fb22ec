// tools/training.h - output shared by `coca train` and `coca finetune`.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/ranges.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli.h"
#include "coca/base/count.h"
#include "coca/base/log.h"
#include "coca/data/pg19.h"
#include "coca/io/options.h"
#include "coca/train/finetune_config.h"
#include "coca/train/loop.h"
#include "ranks.h"

namespace coca::tools {

// A callback that shows the bytes read on a progress line of its own. Destroying it ends the line. Nothing is shown if
// it is never called.
class BytesProgress {
 public:
  explicit BytesProgress(std::string label) : label_(std::move(label)) {}
  ~BytesProgress() { progress_.finish(); }
  void operator()(int64_t done, int64_t total) {
    progress_.shown({.total = total, .unit = "bytes", .label = label_}).update(done);
  }

 private:
  std::string label_;
  LateProgress progress_;
};

// Tokenizes text into a token file through `cache`. The first rank does the work and the others open the file.
data::TokenFile load_tokens(const std::vector<std::string>& inputs, const text::Tokenizer&,
                            const std::filesystem::path& cache, const std::string& what,
                            std::optional<data::Split> split, data::Split otherwise);

// The validation text of a run: the one given, or else the split `validation` if the training text is in PG-19's
// layout. With Say::kChoice, prints the latter.
enum class Say : uint8_t { kNothing, kChoice };
template <class Config>
std::vector<std::string> validation_text_of(const Config& c, Say say) {
  if (!c.validation_text.empty() || c.split == data::Split::kValidation) return c.validation_text;
  std::vector<std::string> chosen = data::validation_of(c.text);
  if (say == Say::kChoice && !chosen.empty())
    print_prose(fmt::format("validation text: {} (--validation-text chooses another)\n", fmt::join(chosen, ", ")));
  return chosen;
}

// Drops validation text that was chosen automatically and is shorter than one window, with a warning.
template <class Config>
void leave_out_short_choice(const Config& c, int64_t length, std::optional<data::TokenFile>& validation) {
  if (!validation || !c.validation_text.empty() || validation->size() > length) return;
  if (first_rank())
    log_warning("the split validation has {}; a window needs {}: there is no validation",
                counted(validation->size(), "token"), length + 1);
  validation.reset();
}

// What train::saved_options finds on the first rank, for all ranks; "": no run.
std::pair<std::string, nlohmann::json> saved_options_for_all(const std::filesystem::path& out, const std::string& name);

// With --resume, starts from the options saved in config.out and applies --config and the flags to them. A change that
// is not allowed is an error that names the flag. name: of the saved file.
template <class Config>
bool resume_options(OptionFlags& flags, Config& config, const std::string& name) {
  const auto [file, saved] = saved_options_for_all(config.out, name);
  if (file.empty()) return false;
  const std::string out = config.out;
  io::options_from_json(config, saved, file);
  config.out = out;
  flags.finish();
  train::check_resumed_options(file, saved, train::checkpoint_plan(config));
  return true;
}
// Prints the output folder if the user did not choose one.
void note_default_out(const OptionFlags&, const std::string& out);
// The folder of a run until the run begins. Throws an error if --out is a file, or if another process writes there.
class BeforeBegin {
 public:
  explicit BeforeBegin(const std::filesystem::path& out);
  // If the run is refused, removes what was made since claim(): the tokenized text in the folder `data` of --out, the
  // lock, and the folders themselves.
  ~BeforeBegin();
  BeforeBegin(const BeforeBegin&) = delete;
  BeforeBegin& operator=(const BeforeBegin&) = delete;
  // Makes the folder and locks it, before anything is written there: all ranks together, the first does it.
  void claim();
  const train::Claim& lock() const { return lock_; }
  void begun() { made_.clear(); }

 private:
  const std::filesystem::path out_;
  train::Claim lock_;
  std::vector<std::filesystem::path> made_;  // made here, innermost first
};
// Runs the check on the first rank. If it fails, all ranks throw its error. Only the first rank gets the result.
std::filesystem::path first_rank_checks(const std::function<std::filesystem::path()>& check);

// For --dry-run: the steps already done in this checkpoint ("": none), the validations in the remaining steps, and a
// text for both.
int64_t first_step(const std::filesystem::path& checkpoint);
int64_t validations_left(int64_t done, int64_t steps, int64_t interval);
std::string steps_text(int64_t done, int64_t steps, int64_t step_tokens);  // "10 steps of 128 tokens"; "... left of 40"

// Prints what --resume found in the folder.
// found: whether `out` held a run, as resume_options() says.
void print_resumed(const std::string& out, bool found, int64_t first_step, int64_t steps);

// Rejects options about tasks that would have no effect.
enum class TaskText : uint8_t { kNone, kMixed };
void check_task_effects(const OptionFlags&, const data::TaskOptions&, TaskText);

// Loss, learning rate, gradient norm and speed, and the validation, the exam and skipped steps if any.
std::string step_text(const train::StepReport&);
// shared: number of documents that occur in both training and validation text.
void print_summary(const train::TrainSummary&, int64_t shared);

// Warns on the first rank about each document that is in both lists (data/overlap.h). Returns their number.
int64_t warn_of_overlap(std::string_view training, std::string_view validation);

}  // namespace coca::tools

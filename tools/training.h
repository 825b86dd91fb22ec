// tools/training.h - what `coca train` and `coca finetune` show alike.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/ranges.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
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

// A callback that shows bytes read on a line of its own, which ends with it. Nothing is shown when it is never called.
class BytesProgress {
 public:
  explicit BytesProgress(std::string label) : label_(std::move(label)) {}
  ~BytesProgress() {
    if (progress_) progress_->finish();
  }
  void operator()(int64_t done, int64_t total) {
    if (!progress_) progress_ = make_progress({.total = total, .unit = "bytes", .label = label_});
    progress_->update(done);
  }

 private:
  std::string label_;
  std::optional<report::Progress> progress_;
};

// Text to a token file through `cache`; by the first rank, and the others find it there.
data::TokenFile load_tokens(const std::vector<std::string>& inputs, const text::Tokenizer&,
                            const std::filesystem::path& cache, const std::string& what,
                            std::optional<data::Split> split, data::Split otherwise);

// The validation text of a run: what was given, else of training text in PG-19's layout its split `validation`, which
// `say` prints.
enum class Say : uint8_t { kNothing, kChoice };
template <class Config>
std::vector<std::string> validation_text_of(const Config& c, Say say) {
  if (!c.validation_text.empty() || c.split == data::Split::kValidation) return c.validation_text;
  std::vector<std::string> chosen = data::validation_of(c.text);
  if (say == Say::kChoice && !chosen.empty())
    print_prose(fmt::format("validation text: {} (--validation-text chooses another)\n", fmt::join(chosen, ", ")));
  return chosen;
}

// Validation text that nobody asked for and that has no whole window is left out, with a warning.
template <class Config>
void leave_out_short_choice(const Config& c, int64_t length, std::optional<data::TokenFile>& validation) {
  if (!validation || !c.validation_text.empty() || validation->size() > length) return;
  if (first_rank())
    log_warning("the split validation has {}; a window needs {}: there is no validation",
                counted(validation->size(), "token"), length + 1);
  validation.reset();
}

// With --resume, the options of the run in config.out are where those of --config and the flags are applied to; a
// difference that may not be is an error that names the flag. name: of the saved file.
template <class Config>
void resume_options(OptionFlags& flags, Config& config, const std::string& name) {
  const auto saved = train::saved_options(config.out, name);
  if (!saved) return;
  const std::string out = config.out;
  io::options_from_json(config, saved->second, saved->first.string());
  config.out = out;
  flags.finish();
  train::check_resumed_options(saved->first, saved->second, train::checkpoint_plan(config));
}
// Says where a run writes to if its user did not.
void note_default_out(const OptionFlags&, const std::string& out);
// What a run writes before it begins: its tokenized text, in the folder `data` of --out. Where the run is refused, what
// was not there before is removed. An error if --out is a file.
class BeforeBegin {
 public:
  explicit BeforeBegin(const std::filesystem::path& out);
  ~BeforeBegin();
  BeforeBegin(const BeforeBegin&) = delete;
  BeforeBegin& operator=(const BeforeBegin&) = delete;
  void begun() { made_.clear(); }

 private:
  std::vector<std::filesystem::path> made_;  // what was not there, innermost first
};
// By the first rank, whose error is that of all; what it returns is for that rank.
std::filesystem::path first_rank_checks(const std::function<std::filesystem::path()>& check);

// For --dry-run: the steps that are done in this checkpoint ("": none); the validations of the steps that are left;
// both in words.
int64_t first_step(const std::filesystem::path& checkpoint);
int64_t validations_left(int64_t done, int64_t steps, int64_t interval);
std::string steps_text(int64_t done, int64_t steps, int64_t step_tokens);  // "10 steps of 128 tokens"; "... left of 40"

// What --resume found in the folder.
void print_resumed(const std::string& out, int64_t first_step, int64_t steps);

// loss, learning rate, gradient norm, speed, and what there is of validation and skipped steps.
std::string step_text(const train::StepReport&);
// shared: documents that training and validation text have in common.
void print_summary(const train::TrainSummary&, int64_t shared);

// A warning for each document that is in both lists (data/overlap.h), by the first rank; returns how many there are.
int64_t warn_of_overlap(std::string_view training, std::string_view validation);

}  // namespace coca::tools

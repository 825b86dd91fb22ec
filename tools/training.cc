// SPDX-License-Identifier: Apache-2.0
#include "training.h"

#include "coca/base/count.h"
#include "coca/base/memory.h"
#include "coca/io/fs.h"
#include "coca/report/table.h"
#include "coca/train/load_data.h"

namespace coca::tools {

data::TokenFile load_tokens(const std::vector<std::string>& inputs, const text::Tokenizer& tokenizer,
                            const std::filesystem::path& cache, const std::string& what,
                            std::optional<data::Split> split, data::Split otherwise) {
  std::optional<data::TokenFile> tokens;
  dist::first_rank_first(ranks(), [&] {
    BytesProgress progress("tokenizing " + what);
    tokens = train::load_tokens(inputs, tokenizer, cache, std::ref(progress), split, otherwise);
  });
  return std::move(*tokens);
}

std::pair<std::string, nlohmann::json> saved_options_for_all(const std::filesystem::path& out,
                                                             const std::string& name) {
  std::string file, text;
  dist::together(ranks(), [&] {
    if (!first_rank()) return;
    if (const auto saved = train::saved_options(out, name)) {
      file = saved->first.string();
      text = saved->second.dump();
    }
  });
  file = dist::broadcast_text(ranks(), 0, file);
  text = dist::broadcast_text(ranks(), 0, text);
  return {file, file.empty() ? nlohmann::json() : nlohmann::json::parse(text)};
}

void note_default_out(const OptionFlags& flags, const std::string& out) {
  if (!flags.given("--out")) print_note(fmt::format("results go into {}, the default of --out", out));
}

BeforeBegin::BeforeBegin(const std::filesystem::path& out) : out_(std::filesystem::absolute(out).lexically_normal()) {
  check_is_no_file("--out", out);
  dist::together(ranks(), [&] {
    if (first_rank()) io::FolderLock::check_free(out_);
  });
}

void BeforeBegin::claim() {
  dist::together(ranks(), [&] {
    if (!first_rank()) return;
    std::vector<std::filesystem::path> made;
    for (const char* name : {"data", ".lock"})
      if (!io::exists(out_ / name)) made.push_back(out_ / name);
    for (std::filesystem::path at = out_; !io::exists(at) && at.has_relative_path(); at = at.parent_path())
      if (at.has_filename()) made.push_back(at);
    lock_ = std::make_shared<io::FolderLock>(out_);
    made_ = std::move(made);
  });
}

BeforeBegin::~BeforeBegin() {
  if (made_.empty()) return;
  std::error_code ignored;
  if (made_.front().filename() == "data") std::filesystem::remove_all(made_.front(), ignored);
  for (const std::filesystem::path& path : made_) std::filesystem::remove(path, ignored);  // folders only if empty
}

std::filesystem::path first_rank_checks(const std::function<std::filesystem::path()>& check) {
  std::filesystem::path found;
  dist::together(ranks(), [&] {
    if (first_rank()) found = check();
  });
  return found;
}

int64_t first_step(const std::filesystem::path& checkpoint) {
  return checkpoint.empty() ? 0 : train::load_state(checkpoint).step;
}

int64_t validations_left(int64_t done, int64_t steps, int64_t interval) {
  if (done >= steps) return 0;
  return interval > 0 ? (steps - 1) / interval - done / interval + 1
                      : 1;  // those due before the last step, and the one at the last step
}

std::string steps_text(int64_t done, int64_t steps, int64_t step_tokens) {
  const std::string left = fmt::format("{} of {}", counted(steps - done, "step"), counted(step_tokens, "token"));
  return done == 0 ? left : fmt::format("{} left of {}, after step {}", left, grouped(steps), grouped(done));
}

void print_resumed(const std::string& out, bool found, int64_t first_step, int64_t steps) {
  if (!found) return print_note(fmt::format("--resume: no run in {}: starts from the beginning", out));
  if (first_step >= steps)
    return print_prose(fmt::format("{} is already complete: all {} are done\n", out, counted(steps, "step")));
  print_prose(first_step > 0 ? fmt::format("resuming at step {}\n", grouped(first_step))
                             : fmt::format("no checkpoint in {}: starting at step 0\n", out));
}

void check_task_effects(const OptionFlags& flags, const data::TaskOptions& options, TaskText text) {
  const bool tasks = !options.tasks.empty();
  for (const char* flag : {"--task-share", "--task-vocabulary", "--task-pairs", "--task-string", "--task-shifts",
                           "--task-needles", "--task-digits", "--task-multiples", "--task-windows"})
    flags.check_effect(flag, tasks, "no task is trained; add --task (such as --task mqar), or leave the option out");
  flags.check_effect("--task-share", text == TaskText::kMixed,
                     "without --text all windows are tasks; add --text, or leave the option out");
  flags.check_effect("--task-vocabulary", text == TaskText::kNone,
                     "with --text tasks are written in its tokens; leave the option out");
}

std::string step_text(const train::StepReport& r) {
  std::string tasks;
  for (size_t i = 0; i < r.tasks.size(); ++i) {
    const bool next = i == 0 || r.tasks[i].task != r.tasks[i - 1].task;
    tasks += next ? fmt::format(" {}", enum_name(r.tasks[i].task)) : "";
    tasks += fmt::format("{}{:.2f}", next ? " " : "/", r.tasks[i].accuracy());
  }
  return fmt::format("loss {:.4f} lr {:.2e} norm {:.2f} {:.0f} tok/s{}{}{}", r.loss, r.learning_rate, r.grad_norm,
                     r.tokens_per_second, r.validation_loss ? fmt::format(" val {:.4f}", *r.validation_loss) : "",
                     tasks, r.skipped ? fmt::format(" skipped {}", r.skipped) : "");
}

int64_t warn_of_overlap(std::string_view training, std::string_view validation) {
  const data::Overlap overlap = data::find_overlap(training, validation);
  if (first_rank())
    for (const std::string& sentence : data::overlap_sentences(overlap, "validation")) log_warning("{}", sentence);
  return overlap.documents;
}

void print_summary(const train::TrainSummary& summary, int64_t shared) {
  report::Table table{.title = "", .header = {"", "value"}, .rows = {}, .align = {}};
  table.rows = {{"steps", grouped(summary.steps)},
                {"tokens", grouped(summary.tokens)},
                {"final loss", fmt::format("{:.4f}", summary.final_loss)},
                {"validation loss", summary.validation_loss ? fmt::format("{:.4f}", *summary.validation_loss) : "-"},
                {"skipped steps", grouped(summary.skipped)},
                {"training time", report::format_duration(summary.seconds)},
                {"tokens per second", grouped(static_cast<int64_t>(summary.tokens_per_second))},
                {"peak memory", report::format_bytes(peak_resident_bytes())}};
  if (shared > 0) table.rows.push_back({"validation documents also trained on", grouped(shared)});
  print(table_text(table));
}

}  // namespace coca::tools

// coca train: trains a decoder from scratch on text, on synthetic tasks, or on both.
// SPDX-License-Identifier: Apache-2.0
#include "cli.h"
#include "coca/base/count.h"
#include "coca/io/fs.h"
#include "coca/report/html.h"
#include "coca/report/table.h"
#include "coca/study/task_results.h"
#include "coca/train/load_data.h"
#include "coca/train/slices.h"
#include "coca/train/trainer.h"
#include "estimate.h"
#include "ranks.h"
#include "training.h"

namespace coca::tools {

namespace {

struct Options {
  train::TrainConfig config;
  bool resume = false, dry_run = false;

  template <class V>
  void visit(V&& v) {
    config.visit(v);
    v("resume",
      "continue from the newest checkpoint in --out, with the options saved there; ends in the same bits as a run that "
      "was not stopped",
      resume);
    v("dry_run", "estimate time, memory and disk, and do nothing", dry_run);
  }
};

bool only_tasks(const train::TrainConfig& c) { return c.text.empty(); }

std::unique_ptr<text::Tokenizer> tokenizer_of(const train::TrainConfig& c) {
  if (!only_tasks(c)) return text::load_tokenizer(c.tokenizer);
  return text::make_symbol_tokenizer(
      static_cast<int32_t>(std::min<int64_t>(train::task_vocabulary(c.tasks, c.length), text::kMostSymbols + 1)));
}

std::string task_names(const train::TrainConfig& c) {
  std::string names;
  for (const data::Task task : c.tasks.tasks) names += fmt::format("{}{}", names.empty() ? "" : ", ", enum_name(task));
  return names;
}

// Runs --dry-run: makes the same checks as a real run and prints the estimate. from: the checkpoint to start from.
int estimate(const train::TrainConfig& c, const text::Tokenizer& tokenizer, const std::filesystem::path& from) {
  std::string list, validation_list;
  const data::TokenFile tokens = only_tasks(c) ? train::no_text(c, tokenizer)
                                               : train::sample_tokens(c.text, tokenizer, {.tokens = c.length + 1},
                                                                      c.split, data::Split::kTrain, &list);
  std::optional<data::TokenFile> validation;
  if (const std::vector<std::string> text = validation_text_of(c, Say::kChoice); !text.empty())
    validation = train::sample_tokens(text, tokenizer, {.tokens = c.validation_windows * c.length + 1}, std::nullopt,
                                      data::Split::kValidation, &validation_list);
  leave_out_short_choice(c, c.length, validation);
  train::check_data(c, {.tokens = tokens, .validation = validation ? &*validation : nullptr, .tokenizer = tokenizer});
  if (validation && !only_tasks(c)) warn_of_overlap(list, validation_list);
  train::warn_of_start(c, from, ranks().size());

  const model::ModelSpec spec = train::trained_spec(c, tokenizer);
  const double each = model::forward_flops_per_token(spec, c.length);
  const int64_t done = first_step(from), step_tokens = c.batch * c.accumulation * c.length,
                todo = (c.steps - done) * step_tokens;
  const int64_t windows = validation ? std::min(c.validation_windows, (validation->size() - 1) / c.length) : 0;
  const int64_t validated = validations_left(done, c.steps, c.validation_interval) * windows * c.length,
                parameters = model::parameter_count(spec);
  Work work{.parts = {{"training", Pass::kTraining, todo, 3 * static_cast<double>(todo) * each}},
            .spec = spec,
            .precision = c.precision,
            .recompute = c.recompute,
            .length = c.length,
            .batch = train::in_slices(c, ranks().size()).batch,
            .disk = training_disk(parameters, c.keep_checkpoints) +
                    (only_tasks(c) ? 0 : train::cache_bytes(c.text, tokenizer, c.split, data::Split::kTrain)) +
                    train::cache_bytes(validation_text_of(c, Say::kNothing), tokenizer, std::nullopt,
                                       data::Split::kValidation)};
  work.memory = training_memory(work, parameters);
  if (validated > 0)
    work.parts.push_back({"validation", Pass::kForward, validated, static_cast<double>(validated) * each});
  if (const int64_t exams = validations_left(done, c.steps, c.validation_interval) *
                            static_cast<int64_t>(c.tasks.tasks.size()) * c.tasks.windows;
      exams > 0) {
    Part part{"tasks", Pass::kForward};
    for (const int64_t multiple : c.tasks.multiples) {
      part.tokens += exams * multiple * c.length;
      part.flops +=
          static_cast<double>(exams * multiple * c.length) * model::forward_flops_per_token(spec, multiple * c.length);
    }
    work.parts.push_back(part);
  }
  print_prose(fmt::format("{}: {}, attention {}, {}\n\n", c.out, counted(parameters, "parameter"),
                          enum_name(c.attention), steps_text(done, c.steps, step_tokens)));
  return print_dry_run(work);
}

// Rejects options that would have no effect.
void check_effects(const OptionFlags& flags, const train::TrainConfig& c) {
  for (const char* flag : {"--passkey-wording", "--passkey-digits"})
    flags.check_effect(flag, c.passkey_share > 0 || c.passkey_first_steps > 0,
                       "no passkeys are taught; add --passkey-share (such as --passkey-share 0.2), or leave the option "
                       "out");
  check_task_effects(flags, c.tasks, only_tasks(c) ? TaskText::kNone : TaskText::kMixed);
  const bool tasks = !c.tasks.tasks.empty();
  for (const char* flag : {"--tokenizer", "--validation-text", "--split", "--passkey-share", "--passkey-first-steps"})
    flags.check_effect(flag, !tasks || !only_tasks(c),
                       "tasks without --text have a vocabulary of their own; add --text, or leave the option out");
  flags.check_effect("--clex-rate", c.positions.rope_scaling == model::Scaling::kClex,
                     "only rope scaling clex has a network with a rate of its own; add --rope-scaling clex, or leave "
                     "the option out");
  flags.check_effect("--t-width", model::is_coca(c.attention), "only CoCA has a T projection; leave the option out");
  flags.check_effect("--parallel-residual", c.architecture == model::Architecture::kGptNeoX,
                     "only --architecture gpt_neox has it; leave the option out");
  for (const char* flag : {"--rotary-pct", "--rope-theta"})
    flags.check_effect(
        flag, model::uses_rotary(c.attention),
        fmt::format("--attention {} has no rotary positions; leave the option out", enum_name(c.attention)));
}

// The accuracies of the whole run, which --resume may have continued: a table, and a report with charts.
void show_tasks(const train::TrainConfig& c) {
  if (c.tasks.tasks.empty() || !first_rank()) return;
  const std::filesystem::path out = c.out;
  const std::vector<study::TaskRuns> runs = {{.name = "", .seeds = {train::read_metrics(out / "metrics.csv")}}};
  std::vector<int64_t> lengths;
  for (const int64_t multiple : c.tasks.multiples) lengths.push_back(multiple * c.length);
  print("\n" + table_text(study::task_table(runs, c.tasks.tasks, lengths)) + "\n");
  report::Document document(fmt::format("Tasks of {}", c.out));
  document.paragraph(
      fmt::format("Attention {}, trained on windows of {}.", enum_name(c.attention), counted(c.length, "token")));
  study::add_tasks(document, runs, c.tasks.tasks, lengths);
  io::write_file_atomic(out / "tasks.html", report::to_html(document));
  print_prose(fmt::format("tasks: {}\n", (out / "tasks.html").string()));
}

int run(OptionFlags& flags, Options& options) {
  BeforeBegin before(options.config.out);
  require_shared_out(options.config.out);
  const bool found = options.resume && resume_options(flags, options.config, "train_config.json");
  const train::TrainConfig& c = options.config;
  train::check_config(c);
  check_effects(flags, c);
  COCA_CHECK(!c.text.empty() || !c.tasks.tasks.empty(),
             "--text: no training text given, and no --task, which needs none{}",
             options.resume ? fmt::format(", and {} holds no run to resume", c.out) : "");
  const std::filesystem::path out = c.out;
  const auto tokenizer = tokenizer_of(c);
  const train::Start start = options.resume ? train::Start::kResume : train::Start::kFresh;
  if (!options.dry_run) before.claim();
  const std::filesystem::path from =
      first_rank_checks([&] { return train::check_start(c, *tokenizer, start, ranks().size()); });
  note_default_out(flags, c.out);
  if (options.dry_run) return estimate(c, *tokenizer, from);
  const data::TokenFile tokens = only_tasks(c) ? train::no_text(c, *tokenizer)
                                               : load_tokens(c.text, *tokenizer, out / "data" / "train.tok",
                                                             "training text", c.split, data::Split::kTrain);
  const std::vector<std::string> validation_text = validation_text_of(c, Say::kChoice);
  std::optional<data::TokenFile> validation;
  if (!validation_text.empty())
    validation = load_tokens(validation_text, *tokenizer, out / "data" / "validation.tok", "validation text",
                             std::nullopt, data::Split::kValidation);
  leave_out_short_choice(c, c.length, validation);
  const std::filesystem::path data = out / "data";
  const int64_t shared =
      !validation || only_tasks(c)
          ? 0
          : warn_of_overlap(train::document_list(c.text, tokens, *tokenizer, data / "train.tok"),
                            train::document_list(validation_text, *validation, *tokenizer, data / "validation.tok"));

  train::Trainer trainer(c,
                         {.tokens = tokens, .validation = validation ? &*validation : nullptr, .tokenizer = *tokenizer},
                         start, ranks(), before.lock());
  before.begun();
  print_prose(fmt::format("{}: {}, attention {}, {}, {} per step, activations {}{}\n", c.out,
                          counted(model::parameter_count(trainer.spec()), "parameter"), enum_name(c.attention),
                          only_tasks(c) ? "tasks " + task_names(c) : counted(tokens.size(), "training token"),
                          grouped(c.batch * c.length * c.accumulation),
                          report::format_bytes(static_cast<int64_t>(trainer.activation_bytes())), ranks_text()));
  if (options.resume) print_resumed(c.out, found, trainer.first_step(), c.steps);
  report::Progress progress =
      make_progress({.total = c.steps, .start = trainer.first_step(), .unit = "steps", .label = "train"});
  const train::TrainSummary summary =
      trainer.run([&](const train::StepReport& r) { progress.update(r.step, step_text(r)); });
  progress.finish();
  print_summary(summary, shared);
  show_tasks(c);
  print_prose(fmt::format("model: {}\nmetrics: {}\n", (out / "model").string(), (out / "metrics.csv").string()));
  return 0;
}

}  // namespace

void add_train(CLI::App& root, Action* action) {
  add_command<Options>(root, action, "train", "Train a decoder from scratch on text",
                       "Example: coca train --text books/train --validation-text books/validation --attention "
                       "coca-slack --out out/slack",
                       run);
}

}  // namespace coca::tools

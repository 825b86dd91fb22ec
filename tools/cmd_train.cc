// coca train: trains a decoder from scratch on text.
// SPDX-License-Identifier: Apache-2.0
#include "cli.h"
#include "coca/base/count.h"
#include "coca/report/table.h"
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

// Runs --dry-run: makes the same checks as a real run and prints the estimate. from: the checkpoint to start from.
int estimate(const train::TrainConfig& c, const text::Tokenizer& tokenizer, const std::filesystem::path& from) {
  std::string list, validation_list;
  const data::TokenFile tokens =
      train::sample_tokens(c.text, tokenizer, {.tokens = c.length + 1}, c.split, data::Split::kTrain, &list);
  std::optional<data::TokenFile> validation;
  if (const std::vector<std::string> text = validation_text_of(c, Say::kChoice); !text.empty())
    validation = train::sample_tokens(text, tokenizer, {.tokens = c.validation_windows * c.length + 1}, std::nullopt,
                                      data::Split::kValidation, &validation_list);
  leave_out_short_choice(c, c.length, validation);
  train::check_data(c, {.tokens = tokens, .validation = validation ? &*validation : nullptr, .tokenizer = tokenizer});
  if (validation) warn_of_overlap(list, validation_list);
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
                    train::cache_bytes(c.text, tokenizer, c.split, data::Split::kTrain) +
                    train::cache_bytes(validation_text_of(c, Say::kNothing), tokenizer, std::nullopt,
                                       data::Split::kValidation)};
  work.memory = training_memory(work, parameters);
  if (validated > 0)
    work.parts.push_back({"validation", Pass::kForward, validated, static_cast<double>(validated) * each});
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

int run(OptionFlags& flags, Options& options) {
  BeforeBegin before(options.config.out);
  require_shared_out(options.config.out);
  const bool found = options.resume && resume_options(flags, options.config, "train_config.json");
  const train::TrainConfig& c = options.config;
  train::check_config(c);
  check_effects(flags, c);
  COCA_CHECK(!c.text.empty(), "--text: no training text given{}",
             options.resume ? fmt::format(", and {} holds no run to resume", c.out) : "");
  const std::filesystem::path out = c.out;
  const auto tokenizer = text::load_tokenizer(c.tokenizer);
  const train::Start start = options.resume ? train::Start::kResume : train::Start::kFresh;
  if (!options.dry_run) before.claim();
  const std::filesystem::path from =
      first_rank_checks([&] { return train::check_start(c, *tokenizer, start, ranks().size()); });
  note_default_out(flags, c.out);
  if (options.dry_run) return estimate(c, *tokenizer, from);
  const data::TokenFile tokens =
      load_tokens(c.text, *tokenizer, out / "data" / "train.tok", "training text", c.split, data::Split::kTrain);
  const std::vector<std::string> validation_text = validation_text_of(c, Say::kChoice);
  std::optional<data::TokenFile> validation;
  if (!validation_text.empty())
    validation = load_tokens(validation_text, *tokenizer, out / "data" / "validation.tok", "validation text",
                             std::nullopt, data::Split::kValidation);
  leave_out_short_choice(c, c.length, validation);
  const std::filesystem::path data = out / "data";
  const int64_t shared =
      !validation
          ? 0
          : warn_of_overlap(train::document_list(c.text, tokens, *tokenizer, data / "train.tok"),
                            train::document_list(validation_text, *validation, *tokenizer, data / "validation.tok"));

  train::Trainer trainer(c,
                         {.tokens = tokens, .validation = validation ? &*validation : nullptr, .tokenizer = *tokenizer},
                         start, ranks(), before.lock());
  before.begun();
  print_prose(fmt::format("{}: {}, attention {}, {}, {} per step, activations {}{}\n", c.out,
                          counted(model::parameter_count(trainer.spec()), "parameter"), enum_name(c.attention),
                          counted(tokens.size(), "training token"), grouped(c.batch * c.length * c.accumulation),
                          report::format_bytes(static_cast<int64_t>(trainer.activation_bytes())), ranks_text()));
  if (options.resume) print_resumed(c.out, found, trainer.first_step(), c.steps);
  report::Progress progress =
      make_progress({.total = c.steps, .start = trainer.first_step(), .unit = "steps", .label = "train"});
  const train::TrainSummary summary =
      trainer.run([&](const train::StepReport& r) { progress.update(r.step, step_text(r)); });
  progress.finish();
  print_summary(summary, shared);
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

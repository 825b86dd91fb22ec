// coca train: train a decoder from scratch on text.
// SPDX-License-Identifier: Apache-2.0
#include "cli.h"
#include "coca/report/table.h"
#include "coca/train/trainer.h"
#include "ranks.h"
#include "training.h"

namespace coca::tools {

namespace {

struct Options {
  train::TrainConfig config;
  bool resume = false;
};

int run(const Options& options) {
  const train::TrainConfig& c = options.config;
  train::check_config(c);
  COCA_CHECK(!c.text.empty(), "--text: no training text given");
  const std::filesystem::path out = c.out;
  const auto tokenizer = text::load_tokenizer(c.tokenizer);
  const data::TokenFile tokens = load_tokens(c.text, *tokenizer, out / "data" / "train.tok", "training text");
  std::optional<data::TokenFile> validation;
  if (!c.validation_text.empty()) validation = load_tokens(c.validation_text, *tokenizer, out / "data" / "validation.tok", "validation text", data::Split::kValidation);

  train::Trainer trainer(c, {.tokens = tokens, .validation = validation ? &*validation : nullptr, .tokenizer = *tokenizer},
                         options.resume ? train::Start::kResume : train::Start::kFresh, ranks());
  print(fmt::format("{}: {} parameters, attention {}, {} training tokens, {} per step, activations {}{}\n", c.out,
                    report::format_count(model::parameter_count(trainer.spec())), enum_name(c.attention), report::format_count(tokens.size()),
                    report::format_count(c.batch * c.length * c.accumulation), report::format_bytes(static_cast<int64_t>(trainer.activation_bytes())), ranks_text()));
  if (options.resume) print_resumed(c.out, trainer.first_step());
  report::Progress progress = make_progress({.total = c.steps, .start = trainer.first_step(), .unit = "steps", .label = "train"});
  const train::TrainSummary summary = trainer.run([&](const train::StepReport& r) {
    progress.update(r.step, step_text(r));
  });
  progress.finish();
  print_summary(summary);
  print(fmt::format("model: {}\nmetrics: {}\n", (out / "model").string(), (out / "metrics.csv").string()));
  return 0;
}

}  // namespace

void add_train(CLI::App& root, Action* action) {
  CLI::App* app = root.add_subcommand("train", "Train a decoder from scratch on text");
  auto options = std::make_shared<Options>();
  auto flags = std::make_shared<OptionFlags>(*app, options->config);
  flags->add_config_flag();
  app->add_flag("--resume", options->resume, "go on from the newest checkpoint in --out (bitwise as if never stopped), with the options saved there")->group("Output");
  app->footer("Example: coca train --text books/train --validation-text books/validation --attention coca-slack --out out/slack");
  app->callback([=] {
    *action = [=] {
      flags->finish();
      if (options->resume) resume_options(*flags, options->config, "train_config.json");
      return run(*options);
    };
  });
}

}  // namespace coca::tools

// coca study: train one small model per method, evaluate all by length, write the report.
// SPDX-License-Identifier: Apache-2.0
#include "cli.h"
#include "coca/report/table.h"
#include "coca/study/report.h"
#include "coca/study/run.h"

namespace coca::tools {

namespace {

// One progress line per stage of the study.
class StageProgress {
 public:
  void operator()(const study::StudyProgress& p) {
    if (!progress_ || p.stage != stage_) {
      finish();
      stage_ = p.stage;
      progress_.emplace(make_progress({.total = p.total, .start = p.start, .unit = p.unit, .label = p.stage}));
    }
    text_ = p.text;
    progress_->update(p.done, p.text);
  }
  void finish() {
    if (progress_) progress_->finish(text_);
    progress_.reset();
  }

 private:
  std::string stage_, text_;
  std::optional<report::Progress> progress_;
};

int run(const study::StudyConfig& options) {
  const study::StudyConfig config = study::resolve(options);
  const study::Corpus corpus = study::load_corpus(config);
  print(corpus.description + "\n");
  StageProgress progress;
  study::StudyResults results = study::run_study(config, corpus, [&](const study::StudyProgress& p) { progress(p); });
  progress.finish();
  const study::StudyFiles files = study::write_study(results);
  print("\n" + report::to_text(study::perplexity_table(results)) + "\n");
  if (config.passkey_share > 0) {
    print(report::to_text(study::passkey_table(results)) + "\n");
    print(report::to_text(study::passkey_digits_table(results)) + "\n");
    if (const std::string note = study::passkey_note(results); !note.empty()) print(note + "\n\n");
  }
  print(report::to_text(study::training_table(results)) + "\n");
  print(fmt::format("report: {}\nalso:   {}, {}, {}\n", files.html.string(), files.markdown.string(), files.json.string(), files.csv.string()));
  return 0;
}

}  // namespace

void add_study(CLI::App& root, Action* action) {
  CLI::App* app = root.add_subcommand("study", "Train a small model per method, evaluate all by length, write a report");
  auto options = std::make_shared<study::StudyConfig>();
  auto flags = std::make_shared<OptionFlags>(*app, *options);
  flags->add_config_flag();
  app->footer("Stopped with Ctrl-C or killed, it goes on from where it was with the same command.\n"
              "Example: coca study --text books/train --test-text books/test --preset small --out out/books");
  app->callback([=] {
    *action = [=] {
      flags->finish();
      return run(*options);
    };
  });
}

}  // namespace coca::tools

// coca study: trains one small model per method, evaluates each by length, and writes the report.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <filesystem>

#include "cli.h"
#include "coca/base/log.h"
#include "coca/report/table.h"
#include "coca/study/report.h"
#include "coca/study/run.h"
#include "coca/study/work.h"
#include "coca/train/trainer.h"
#include "estimate.h"
#include "training.h"

namespace coca::tools {

namespace {

// One progress line per stage of the study.
class StageProgress {
 public:
  void operator()(const study::StudyProgress& p) {
    if (p.stage != stage_) finish();
    stage_ = p.stage;
    text_ = p.text;
    const std::string whole =
        p.seconds_left ? fmt::format("  whole study {} left", report::format_duration(*p.seconds_left)) : "";
    progress_.shown({.total = p.total, .start = p.start, .unit = p.unit, .label = p.stage})
        .update(p.done, p.text + whole);
  }
  void finish() { progress_.finish(text_); }

 private:
  std::string stage_, text_;
  LateProgress progress_;
};

struct Options {
  study::StudyConfig config;
  bool dry_run = false;

  template <class V>
  void visit(V&& v) {
    config.visit(v);
    v("dry_run", "estimate time, memory and disk, and do nothing", dry_run);
  }
};

// All training and evaluation that has no result yet.
struct StudyWork {
  int64_t trainings = 0, evaluations = 0;
  Work work;
};
StudyWork work_of(const study::StudyConfig& c, const text::Tokenizer& tokenizer,
                  const std::vector<int64_t>& test_tokens) {
  StudyWork all;
  all.work.spec = train::trained_spec(study::train_config(c, c.methods.front(), c.seeds.front(), c.out), tokenizer);
  all.work.precision = c.precision;
  all.work.length = c.length;
  all.work.batch = c.batch;
  all.work.parts = {{"training", Pass::kTraining}, {"perplexity", Pass::kForward}, {"passkey", Pass::kForward}};
  for (const std::string& method : c.methods) {
    const study::MethodWork w = study::work_of(c, method, all.work.spec.V, test_tokens);
    all.work.memory = std::max(all.work.memory, w.memory);
    for (const int64_t seed : c.seeds) {
      const std::filesystem::path run = study::run_folder(c, method, seed);
      if (std::filesystem::exists(run / "result.json")) continue;
      ++all.trainings;
      all.evaluations += w.evaluations;
      const int64_t tokens[] = {w.trained_tokens, w.evaluations * w.ppl_tokens, w.evaluations * w.passkey_tokens};
      for (size_t i = 0; i < study::kWorks; ++i) {
        all.work.parts[i].tokens += tokens[i];
        all.work.parts[i].flops += w.all()[i];
      }
      const int64_t done = first_step(train::latest_sound_checkpoint(run).value_or(""));
      all.work.parts[0].tokens -= done * c.batch * c.length;
      all.work.parts[0].flops -= static_cast<double>(done) * w.step_flops;
      all.work.disk += training_disk(w.parameters, 0);
    }
  }
  if (all.trainings > 0)
    all.work.disk +=
        training_disk(model::parameter_count(all.work.spec), 1);  // checkpoints are deleted when a training ends
  if (all.work.parts.back().tokens == 0) all.work.parts.pop_back();
  return all;
}

std::vector<int64_t> test_tokens(const study::Corpus& corpus) {
  std::vector<int64_t> tokens;
  for (const std::vector<int32_t>& document : corpus.test) tokens.push_back(static_cast<int64_t>(document.size()));
  return tokens;
}

void warn_of_shared(const study::Corpus& corpus) {
  for (const std::string& sentence : data::overlap_sentences(corpus.shared, "test")) log_warning("{}", sentence);
}

int dry_run(const study::StudyConfig& c) {
  const study::Corpus corpus = study::load_corpus(c, study::Keep::kNothing);
  study::check_corpus(c, corpus);
  warn_of_shared(corpus);
  for (const std::string& method : c.methods)
    for (const int64_t seed : c.seeds)
      if (const std::filesystem::path run = study::run_folder(c, method, seed);
          !std::filesystem::exists(run / "result.json"))
        train::warn_of_start(study::train_config(c, method, seed, run.string()),
                             train::latest_sound_checkpoint(run).value_or(""), 1);
  const StudyWork all = work_of(c, *corpus.tokenizer, test_tokens(corpus));
  print_prose(fmt::format("{}: {} of {}, {} of at most {}\n\n", c.out, counted(all.trainings, "training"),
                          counted(c.steps, "step"), counted(all.evaluations, "evaluation"),
                          counted(c.eval_documents * c.eval_tokens, "token")));
  return all.trainings > 0 ? print_dry_run(all.work) : end_dry_run();
}

// Reports trainings that were given up: as a warning, or as an error if no other training succeeded. The report gives
// the reasons.
void tell_of_failures(const study::StudyResults& results) {
  std::string names;
  size_t failed = 0;
  for (const study::RunResult& r : results.runs)
    if (!r.failure.empty()) names += fmt::format("{}{} seed {}", failed++ > 0 ? ", " : "", r.method, r.seed);
  const std::string text = fmt::format("{} of {} given up, because {} numbers were no longer finite: {}", failed,
                                       counted(results.runs.size(), "training") + (failed == 1 ? " was" : " were"),
                                       failed == 1 ? "its" : "their", names);
  COCA_CHECK_AS(kNumeric, failed < results.runs.size(), "{}; lower the learning rate and choose another --out", text);
  if (failed > 0) log_warning("{}", text);
}

// Warns about models whose perplexity is not finite at some length. Returns the exit code.
int tell_of_unmeasured(const study::StudyResults& results) {
  std::string found;
  for (const study::RunResult& r : results.runs)
    for (const study::Evaluation& e : r.evaluations)
      for (const study::PerplexityPoint& p : e.perplexity)
        if (!std::isfinite(p.perplexity))
          found += fmt::format("{}{} at length {} of {} seed {}", found.empty() ? "" : ", ",
                               report::format_number(p.perplexity), p.length, study::variant_name(r.method, e.variant),
                               r.seed);
  if (found.empty()) return 0;
  log_warning("the perplexity is {}: a model cannot be measured there", found);
  return kExitFailed;
}

// Rejects options that would have no effect.
void check_effects(const OptionFlags& flags, const study::StudyConfig& c) {
  check_task_effects(flags, c.tasks, TaskText::kMixed);
  for (const char* flag : {"--passkey-wording", "--passkey-digits", "--passkey-trials", "--passkey-first-steps"})
    flags.check_effect(flag, c.passkey_share > 0,
                       "passkeys are neither taught nor measured with --passkey-share 0; leave the option out");
  flags.check_effect(
      "--factors", !c.ntk_methods.empty(),
      "no method is evaluated with dynamic NTK scaling; name one with --ntk-methods, or leave the option "
      "out");
}

int run(const OptionFlags& flags, const Options& options) {
  const study::StudyConfig config = study::resolve(options.config);
  check_effects(flags, config);
  BeforeBegin before(config.out);
  study::check_study(config, *text::load_tokenizer(config.tokenizer));
  note_default_out(flags, config.out);
  if (options.dry_run) return dry_run(config);
  before.claim();
  const study::Corpus corpus = study::load_corpus(config);
  print_prose(corpus.description + "\n");
  warn_of_shared(corpus);
  study::check_corpus(config, corpus);
  before.begun();
  if (const StudyWork all = work_of(config, *corpus.tokenizer, test_tokens(corpus)); all.trainings > 0)
    print_prose(fmt::format("{} and {} are to be done: about {} on this machine, {} of memory, {} of disk\n",
                            counted(all.trainings, "training"), counted(all.evaluations, "evaluation"),
                            report::format_duration(seconds_of(all.work)), report::format_bytes(all.work.memory),
                            report::format_bytes(all.work.disk)));
  StageProgress progress;
  study::StudyResults results = study::run_study(config, corpus, [&](const study::StudyProgress& p) { progress(p); });
  progress.finish();
  const study::StudyFiles files = study::write_study(results);
  print("\n" + table_text(study::perplexity_table(results)) + "\n");
  if (config.passkey_share > 0) {
    print(table_text(study::passkey_table(results)) + "\n");
    print(table_text(study::passkey_digits_table(results)) + "\n");
    if (const std::string note = study::passkey_note(results); !note.empty()) print_prose(note + "\n\n");
  }
  if (!config.tasks.tasks.empty())
    print(table_text(study::task_table(study::task_runs(results), config.tasks.tasks, study::task_lengths(config))) +
          "\n");
  print(table_text(study::training_table(results)) + "\n");
  print_prose(fmt::format("report: {}\nalso:   {}, {}, {}\n", files.html.string(), files.markdown.string(),
                          files.json.string(), files.csv.string()));
  tell_of_failures(results);
  return tell_of_unmeasured(results);
}

}  // namespace

void add_study(CLI::App& root, Action* action) {
  add_command<Options>(root, action, "study", "Train a small model per method, evaluate all by length, write a report",
                       "After Ctrl-C or a kill, the same command continues where the study stopped.\n"
                       "Example: coca study --text books/train --test-text books/test --preset small --out out/books",
                       run);
}

}  // namespace coca::tools

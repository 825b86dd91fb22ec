// SPDX-License-Identifier: Apache-2.0
#include "coca/study/run.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "coca/base/clock.h"
#include "coca/base/count.h"
#include "coca/base/log.h"
#include "coca/base/parallel.h"
#include "coca/eval/passkey.h"
#include "coca/eval/perplexity.h"
#include "coca/formats/model_folder.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/ops/table.h"
#include "coca/report/table.h"
#include "coca/study/work.h"
#include "coca/train/trainer.h"

namespace coca::study {

namespace fs = std::filesystem;

namespace {

// Who is told of the study's progress, with the time that is left of the whole.
class Telling {
 public:
  Telling(const StudyConfig& c, const Corpus& corpus, const StudyListener& listen) : listen_(listen) {
    std::vector<int64_t> tokens;
    for (const std::vector<int32_t>& document : corpus.test) tokens.push_back(static_cast<int64_t>(document.size()));
    for (const std::string& method : c.methods) {
      works_.emplace(method, work_of(c, method, train::padded_vocabulary(*corpus.tokenizer), tokens));
      for (size_t seed = 0; seed < c.seeds.size(); ++seed) meter_.plan(works_.at(method).all());
    }
  }
  Telling(const Telling&) = delete;

  void begin_run(const std::string& method) {
    run_ = &works_.at(method);
    of_run_ = {};
  }
  // What was planned for this run and not done: results of earlier, a training that failed, an estimate that was too
  // high.
  void end_run() {
    const Flops all = run_->all();
    for (size_t i = 0; i < kWorks; ++i) meter_.leave_out(static_cast<Work>(i), std::max(0.0, all[i] - of_run_[i]));
  }
  double step_flops() const { return run_->step_flops; }
  void leave_out_steps(int64_t steps) {
    const double flops = static_cast<double>(steps) * run_->step_flops;
    of_run_[0] += flops;
    meter_.leave_out(Work::kTraining, flops);
  }
  // Since the last call `flops` more were done.
  void tell(StudyProgress p, Work work, double flops) {
    of_run_[static_cast<size_t>(work)] += flops;
    meter_.advance(work, flops);
    p.seconds_left = meter_.seconds_left();
    if (listen_) listen_(p);
  }

 private:
  const StudyListener& listen_;
  std::map<std::string, MethodWork> works_;
  const MethodWork* run_ = nullptr;
  Flops of_run_{};  // done or left out
  WorkMeter meter_;
};

fs::path config_file(const StudyConfig& c) { return fs::path(c.out) / "study.json"; }

// A folder holds one study, and nothing else; continuing it with other options would mix two. Methods and seeds may be
// added or left out: a run depends on its own alone.
void check_folder(StudyConfig config) {
  const fs::path file = config_file(config);
  if (!io::exists(file)) {
    for (const char* of_run : {"checkpoints", "metrics.csv", "train_config.json", "finetune_config.json"})
      COCA_CHECK(!io::exists(fs::path(config.out) / of_run),
                 "{} holds a training run ({}), which a study would mix with its own; choose another --out", config.out,
                 of_run);
    return;
  }
  const nlohmann::ordered_json now = io::options_to_json(config);
  StudyConfig unset;
  nlohmann::json before = io::options_to_json(unset);  // what a study from before an option has of it
  before.update(io::read_json(file));
  const std::set<std::string> free = {"out", "tensorboard", "methods", "seeds", "ntk_methods"};
  for (const auto& [key, value] : now.items())
    COCA_CHECK(free.contains(key) || (before.contains(key) && before[key] == nlohmann::json(value)),
               "{} holds a study with {} = {}; asked for {}: choose another --out or remove the folder", config.out,
               key, before.contains(key) ? before[key].dump() : "nothing", value.dump());
}

void claim_folder(StudyConfig config) {
  check_folder(config);
  io::make_dirs(config.out);
  io::write_json(config_file(config), io::options_to_json(config));
}

std::optional<model::RopeScaling> scaling_of(std::optional<double> ntk_factor) {
  if (!ntk_factor) return std::nullopt;
  return model::RopeScaling{.type = model::Scaling::kDynamic, .factor = *ntk_factor};
}

eval::PerplexityOptions perplexity_options(const StudyConfig& c, std::optional<double> ntk_factor) {
  eval::PerplexityOptions o;
  o.protocol.lengths = eval_lengths(c);
  o.protocol.stride = c.stride;
  o.protocol.bos = eval::Bos::kNever;
  o.scaling = scaling_of(ntk_factor);
  return o;
}

eval::PasskeyOptions passkey_options(const StudyConfig& c, std::optional<double> ntk_factor) {
  eval::PasskeyOptions o;
  o.protocol.lengths = eval_lengths(c);
  o.protocol.trials = c.passkey_trials;
  o.protocol.wording = c.passkey_wording;
  o.protocol.keys = data::keys_of_digits(c.passkey_digits);
  o.protocol.bos = eval::Bos::kNever;
  o.scaling = scaling_of(ntk_factor);
  return o;
}

// Without scaling, and with that of each factor where the method is evaluated with it.
std::vector<std::optional<double>> variants_of(const StudyConfig& c, const std::string& method) {
  std::vector<std::optional<double>> variants{std::nullopt};
  if (std::ranges::find(c.ntk_methods, method) != c.ntk_methods.end())
    variants.insert(variants.end(), c.factors.begin(), c.factors.end());
  return variants;
}

// A run that is done must have been evaluated as asked now.
void check_done(const StudyConfig& c, const std::string& method, const fs::path& file) {
  const RunResult done = run_from_json(io::read_json(file), file.string());
  if (!done.failure.empty()) return;
  std::vector<std::string> found, wanted;
  for (const Evaluation& e : done.evaluations) found.push_back(variant_name(method, e.variant));
  for (const std::optional<double> factor : variants_of(c, method))
    wanted.push_back(variant_name(method, factor ? fmt::format("ntk{:g}", *factor) : ""));
  COCA_CHECK(found == wanted, "{} was evaluated as {}; asked for {}: choose another --out or remove {}", file.string(),
             fmt::join(found, ", "), fmt::join(wanted, ", "), file.parent_path().string());
}

RunResult train_one(const StudyConfig& c, const Corpus& corpus, const std::string& method, int64_t seed,
                    const fs::path& dir, Telling& telling) {
  train::TrainConfig config = train_config(c, method, seed, dir.string());
  if (!c.tensorboard.empty()) config.tensorboard = (fs::path(c.tensorboard) / dir.filename()).string();
  train::Trainer trainer(config,
                         {.tokens = *corpus.train, .validation = &*corpus.validation, .tokenizer = *corpus.tokenizer},
                         train::Start::kResume);
  const int64_t first = trainer.first_step();
  telling.leave_out_steps(first);
  const train::TrainSummary summary = trainer.run([&](const train::StepReport& r) {
    telling.tell({.stage = fmt::format("{} seed {}: training", method, seed),
                  .done = r.step,
                  .total = r.steps,
                  .start = first,
                  .unit = "steps",
                  .text = fmt::format("loss {:.3f} lr {:.1e} norm {:.2f} {:.0f} tok/s", r.loss, r.learning_rate,
                                      r.grad_norm, r.tokens_per_second),
                  .seconds_left = {}},
                 Work::kTraining, telling.step_flops());
  });
  RunResult result;
  result.method = method;
  result.seed = seed;
  result.parameters = summary.parameters;
  result.steps = summary.steps;
  result.tokens = summary.tokens;
  result.skipped = summary.skipped;
  result.train_loss = summary.final_loss;
  result.validation_loss = summary.validation_loss.value_or(std::numeric_limits<double>::quiet_NaN());
  result.seconds = summary.seconds;
  result.tokens_per_second = summary.tokens_per_second;
  // A training that had ended before (only its evaluation was lost) runs no step and so has no last interval.
  const std::vector<train::MetricsRow> curve = train::read_metrics(dir / "metrics.csv");
  if (!curve.empty()) {
    result.train_loss = curve.back().loss;
    result.validation_loss = curve.back().validation_loss;
  }
  return result;
}

Evaluation evaluate_one(const StudyConfig& c, const Corpus& corpus, const model::Model& m, const std::string& name,
                        std::optional<double> ntk_factor, Telling& telling) {
  Evaluation result{.variant = ntk_factor ? fmt::format("ntk{:g}", *ntk_factor) : "", .perplexity = {}, .passkey = {}};
  Context context;
  eval::PerplexityOptions ppl = perplexity_options(c, ntk_factor);
  int64_t tokens = 0, prompts = 0;
  ppl.progress = [&](const eval::PerplexityProgress& p) {
    const double flops = static_cast<double>(p.done_tokens - std::exchange(tokens, p.done_tokens)) *
                         model::forward_flops_per_token(m.spec, p.length);
    telling.tell({.stage = name + ": perplexity",
                  .done = p.done_tokens,
                  .total = p.total_tokens,
                  .start = 0,
                  .unit = "tokens",
                  .text = fmt::format("length {}", p.length),
                  .seconds_left = {}},
                 Work::kPerplexity, flops);
  };
  for (const eval::PerplexityResult& r : eval::perplexity(context, m.spec, m.params->weights(), corpus.test, ppl))
    result.perplexity.push_back({.length = r.length,
                                 .scored_tokens = r.scored_tokens,
                                 .perplexity = r.perplexity,
                                 .nll = r.nll,
                                 .standard_error = r.standard_error.value_or(std::numeric_limits<double>::quiet_NaN()),
                                 .reached = r.reaches_length()});
  if (c.passkey_share == 0) return result;  // a model that never saw such a prompt has nothing to show
  eval::PasskeyOptions key = passkey_options(c, ntk_factor);
  key.progress = [&](const eval::PasskeyProgress& p) {
    const double flops = static_cast<double>((p.done - std::exchange(prompts, p.done)) * p.length) *
                         model::forward_flops_per_token(m.spec, p.length);
    telling.tell({.stage = name + ": passkey",
                  .done = p.done,
                  .total = p.total,
                  .start = 0,
                  .unit = "prompts",
                  .text = fmt::format("length {}", p.length),
                  .seconds_left = {}},
                 Work::kPasskey, flops);
  };
  for (const eval::PasskeyTotal& t : eval::passkey(context, m.spec, m.params->weights(), *corpus.tokenizer, key).totals)
    result.passkey.push_back({.length = t.length,
                              .trials = t.score.trials,
                              .correct = t.score.correct,
                              .accuracy = t.score.accuracy,
                              .low = t.score.accuracy_low,
                              .high = t.score.accuracy_high,
                              .digit_accuracy = t.score.digit_accuracy});
  return result;
}

// runs/<method>/model is all that is needed of a run that is evaluated.
void drop_checkpoints(const fs::path& run) {
  std::error_code error;
  fs::remove_all(train::checkpoint_root(run), error);
  if (error) log_warning("{}: cannot be removed: {}", train::checkpoint_root(run).string(), error.message());
}

RunResult run_one(const StudyConfig& c, const Corpus& corpus, const std::string& method, int64_t seed,
                  Telling& telling) {
  const fs::path dir = run_folder(c, method, seed);
  const fs::path file = dir / "result.json";
  if (io::exists(file)) {
    RunResult done = run_from_json(io::read_json(file), file.string());
    done.curve = train::read_metrics(dir / "metrics.csv");
    if (done.failure.empty()) drop_checkpoints(dir);  // a kill may have come before this
    return done;
  }
  RunResult result;
  try {
    result = train_one(c, corpus, method, seed, dir, telling);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kInterrupted)
      fail(ErrorKind::kInterrupted,
           "stopped while training {} with seed {}; what is done is kept in {}; run the same command again to continue",
           method, seed, c.out);
    if (error.kind() != ErrorKind::kNumeric) throw;
    result = {.method = method, .seed = seed, .failure = error.what()};
    io::write_json(file, to_json(result));
    result.curve = train::read_metrics(dir / "metrics.csv");
    return result;
  }
  const model::Model m = formats::load_model(dir / "model", model::Precision::kF32, formats::LoadT::kFolded);
  m.params->move_to(Context().memory());
  const std::string name = fmt::format("{} seed {}", method, seed);
  for (const std::optional<double> factor : variants_of(c, method))
    result.evaluations.push_back(evaluate_one(
        c, corpus, m, factor ? fmt::format("{} + dynamic NTK {:g}", name, *factor) : name, factor, telling));
  io::write_json(file, to_json(result));
  drop_checkpoints(dir);
  result.curve = train::read_metrics(dir / "metrics.csv");
  return result;
}

}  // namespace

fs::path run_folder(const StudyConfig& c, const std::string& method, int64_t seed) {
  return fs::path(c.out) / "runs" / fmt::format("{}-s{}", method, seed);
}

void check_study(const StudyConfig& c, const text::Tokenizer& tokenizer) {
  check_folder(c);
  for (const std::string& method : c.methods) {
    for (const int64_t seed : c.seeds)
      if (const fs::path dir = run_folder(c, method, seed); io::exists(dir / "result.json"))
        check_done(c, method, dir / "result.json");
      else
        train::check_start(train_config(c, method, seed, dir.string()), tokenizer, train::Start::kResume, 1);
    if (c.passkey_share == 0) continue;
    const model::ModelSpec spec = train::trained_spec(train_config(c, method, c.seeds[0], c.out), tokenizer);
    for (const std::optional<double> factor : variants_of(c, method))
      eval::check_passkey(spec, tokenizer, passkey_options(c, factor));
  }
}

void check_corpus(const StudyConfig& c, const Corpus& corpus) {
  for (const std::string& method : c.methods) {
    const train::TrainConfig config = train_config(c, method, c.seeds[0], c.out);
    train::check_data(config,
                      {.tokens = *corpus.train, .validation = &*corpus.validation, .tokenizer = *corpus.tokenizer});
    const model::ModelSpec spec = train::trained_spec(config, *corpus.tokenizer);
    for (const std::optional<double> factor : variants_of(c, method))
      eval::plan_perplexity(spec, corpus.test, perplexity_options(c, factor));
  }
}

StudyResults run_study(const StudyConfig& config, const Corpus& corpus, const StudyListener& listen) {
  check_study(config, *corpus.tokenizer);
  check_corpus(config, corpus);
  claim_folder(config);
  StudyResults results;
  results.config = config;
  results.corpus = corpus.description;
  results.shared = corpus.shared;
  results.machine = fmt::format("{}, SIMD target {}", counted(max_threads(), "thread"), ops::cpu_target());
  if (const Context cx; cx.memory()) results.machine = cx.memory()->name() + ", " + results.machine;
  Stopwatch watch;
  Telling telling(config, corpus, listen);
  for (const int64_t seed : config.seeds)
    for (const std::string& method : config.methods) {
      telling.begin_run(method);
      results.runs.push_back(run_one(config, corpus, method, seed, telling));
      telling.end_run();
    }
  results.seconds = watch.seconds();
  return results;
}

}  // namespace coca::study

// SPDX-License-Identifier: Apache-2.0
#include "coca/train/loop.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "coca/base/clock.h"
#include "coca/base/count.h"
#include "coca/base/log.h"
#include "coca/base/sizes.h"
#include "coca/base/stop.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/train/metrics.h"
#include "coca/train/nonfinite.h"

namespace coca::train {

namespace fs = std::filesystem;

namespace {

// The least memory of a step: the matrices of the mlps, and the input of every layer, which is kept until backward.
void check_sizes(const LoopOptions& o, const model::ModelSpec& s, int ranks) {
  const int64_t bytes = o.precision == model::Precision::kF32 ? 4 : 2,
                shares = o.share == LoopOptions::Share::kTokens ? ranks : 1;
  check_memory("the model", {{"layers", s.L}, {"width", s.C}, {"mlp width", s.F}, {"matrices", 2}, {"bytes", bytes}},
               "train a smaller one");
  check_memory("a micro-batch",
               {{"batch", o.shape.batch},
                {"length", o.shape.length / shares},
                {"width", s.C},
                {"layers", s.L},
                {"bytes", bytes}},
               "lower the batch (accumulation makes up for it) or the length");
  COCA_CHECK(!o.stages.empty(), "a run needs at least one stage");
  for (const Stage& stage : o.stages)
    COCA_CHECK(stage.steps >= 1, "a stage of {}; expected at least 1", counted(stage.steps, "step"));
  COCA_CHECK(o.share == LoopOptions::Share::kTokens || (o.slices % ranks == 0 && o.shape.accumulation % o.slices == 0),
             "a step in {} slices of {} micro-batches in all cannot be divided among {}", o.slices,
             o.shape.accumulation, counted(ranks, "rank"));
}

LoopOptions checked(LoopOptions o, const model::ModelSpec& spec, int ranks) {
  check_sizes(o, spec, ranks);
  if (const Context cx; cx.memory())
    COCA_CHECK(ranks == 1 && o.slices == 1, "training on {} is for one rank and one slice; found {} and {}",
               cx.device().text(), counted(ranks, "rank"), counted(o.slices, "slice"));
  if (o.share == LoopOptions::Share::kTokens) o.slices = ranks;  // one for each rank: its tokens
  return o;
}

// Locks the out folder, if the caller has not, and removes what a killed run left there. Returns the newest intact
// checkpoint, or "".
std::string open_folder(const fs::path& out, Start start, Claim& claim) {
  if (!claim) claim = std::make_shared<io::FolderLock>(out);
  const fs::path newest = check_folder(out, start);
  for (const fs::path& dir : {out, out / "data", checkpoint_root(out)}) io::remove_leftovers(dir);
  return newest.string();
}

// Once for all stages that are too short for their warm-up, and once for all trainings of a study.
void warn_of_warm_up(const std::vector<Stage>& stages) {
  const auto cold = [](const Stage& stage) { return stage.schedule.warmup_steps > stage.steps; };
  const auto first = std::ranges::find_if(stages, cold);
  if (first == stages.end()) return;
  const int64_t others = std::ranges::count_if(stages, cold) - 1;
  log_once(
      LogLevel::kWarning,
      fmt::format("warmup_steps is {}, but the {} {}: the learning rate ends at {:.2e} and never reaches its peak of "
                  "{:.2e}{}",
                  grouped(first->schedule.warmup_steps), stages.size() == 1 ? "training has only" : "stage has only",
                  counted(first->steps, "step"), optim::learning_rate(first->schedule, first->steps - 1),
                  first->schedule.peak,
                  others == 0 ? "" : fmt::format("; the same holds for {}", counted(others, "other stage"))));
}

// AdamW moves each weight by about the learning rate in a step, whatever the gradient.
void warn_of_great_steps(const std::vector<Stage>& stages) {
  for (const Stage& stage : stages)
    if (stage.schedule.peak > 1)
      log_once(LogLevel::kWarning,
               fmt::format("learning_rate is {:.3g}: each step moves every weight by about as much; usual are 1e-5 to "
                           "1e-2",
                           stage.schedule.peak));
}

// Of a run with one stage: what other options do to the learning rate of the next step.
void warn_of_schedule(const LoopOptions& o, const fs::path& checkpoint) {
  const int64_t step = load_state(checkpoint).step;
  if (o.stages.size() != 1 || step >= o.stages[0].steps) return;
  const nlohmann::json was = io::read_json(checkpoint / o.checkpoints.config_name);
  const optim::Schedule& now = o.stages[0].schedule;
  optim::Schedule before = now;
  const nlohmann::json is = o.checkpoints.config;
  const auto change = [&](const char* key, auto& value) {  // 0 stands for a number that depends on others
    if (was.contains(key) && is.contains(key) && was[key] != is[key] && was[key] != 0) value = was[key];
  };
  change("steps", before.total_steps);
  change("warmup_steps", before.warmup_steps);
  change("learning_rate", before.peak);
  change("min_learning_rate", before.floor);
  if (was.contains("decay")) before.decay = enum_from_name<optim::Decay>(was["decay"].get<std::string>());
  const double from = optim::learning_rate(before, step), to = optim::learning_rate(now, step);
  if (from != to)
    log_warning("the learning rate follows another schedule now: at step {} it changes from {:.3g} to {:.3g}",
                grouped(step + 1), from, to);
}

// Such a step is rarely meant, and nothing is shown before it ends.
void warn_of_long_steps(const LoopOptions& o, int64_t tokens) {
  constexpr int64_t kTimes = 16;
  const int64_t step = o.shape.step_tokens();
  if (tokens > 0 && step / kTimes >= tokens)
    log_warning("each step reads the {} about {} times over; with a lower batch or accumulation there are more updates",
                counted(tokens, "training token"), grouped(step / tokens));
}

int64_t steps_of(const std::vector<Stage>& stages) {
  return std::accumulate(stages.begin(), stages.end(), int64_t{0},
                         [](int64_t sum, const Stage& stage) { return sum + stage.steps; });
}

void check_step(const fs::path& checkpoint, int64_t step, int64_t steps) {
  COCA_CHECK(step <= steps, "{} is at step {}, beyond the {} asked for", checkpoint.string(), grouped(step),
             counted(steps, "step"));
}

}  // namespace

fs::path check_folder(const fs::path& out, Start start) {
  COCA_CHECK(!io::exists(out / "study.json"), "{} holds a study (study.json); choose another folder", out.string());
  const auto held = latest_checkpoint(out);
  COCA_CHECK(start == Start::kResume || !held,
             "{} already holds a training run ({}); resume it, or choose another folder", out.string(),
             held ? held->string() : "");
  const auto newest = latest_sound_checkpoint(out);
  if (start == Start::kResume && !newest) check_never_saved(out);
  return newest.value_or("");
}

fs::path check_start(const LoopOptions& o, const model::ModelSpec& spec, Start start, int ranks) {
  check_sizes(o, spec, ranks);
  const fs::path checkpoint = check_folder(o.checkpoints.out, start);
  if (!checkpoint.empty()) check_step(checkpoint, load_state(checkpoint).step, steps_of(o.stages));
  return checkpoint;
}

void warn_of_start(const LoopOptions& o, const fs::path& checkpoint) {
  warn_of_warm_up(o.stages);
  warn_of_great_steps(o.stages);
  if (checkpoint.empty()) return;
  warn_of_changes(checkpoint, o.checkpoints);
  warn_of_schedule(o, checkpoint);
}

Loop::Loop(LoopOptions options, const model::ModelSpec& spec, const LoopData& data, Start start,
           const Initialise& initialise, dist::Communicator& ranks, Claim claim)
    : options_(checked(std::move(options), spec, ranks.size())),
      data_(data),
      ranks_(ranks),
      claim_(std::move(claim)),
      spec_(spec),
      model_(spec_, options_.precision, options_.adapter),
      step_(spec_, options_, data_, model_, ranks),
      steps_(steps_of(options_.stages)) {
  std::string newest;
  dist::together(ranks_, [&] {
    if (first_rank()) newest = open_folder(options_.checkpoints.out, start, claim_);
  });
  newest = dist::broadcast_text(ranks_, 0, newest);
  dist::together(ranks_, [&] {
    if (options_.adapter || newest.empty()) initialise(model_.params());
  });
  if (options_.adapter) state_.base_fingerprint = model_.fingerprint();
  if (newest.empty()) {
    begin_stage(0);
    state_.data_tokens = data.tokens;
    state_.tokenizer_fingerprint = data.tokenizer.fingerprint();
    state_.data_fingerprint = data.fingerprint;
  } else {
    begin_stage(stage_at(load_state(newest).step));
    dist::together(ranks_, [&] { resume(newest); });
    saved_step_ = state_.step;
  }
  if (first_rank()) {
    warn_of_start(options_, newest);
    warn_of_long_steps(options_, data.tokens);
  }
  model_.bind(step_.batch().context());
}

void Loop::begin_stage(int64_t stage) {
  stage_ = stage;
  step_.begin_stage(options_.stages[static_cast<size_t>(stage)]);
}

int64_t Loop::stage_start(int64_t stage) const {
  const auto first = options_.stages.begin();
  return std::accumulate(first, first + stage, int64_t{0}, [](int64_t sum, const Stage& s) { return sum + s.steps; });
}

// The learning rate of the step that follows `step` steps.
double Loop::rate_after(int64_t step) const {
  const int64_t stage = stage_at(step);
  return optim::learning_rate(options_.stages[static_cast<size_t>(stage)].schedule, step - stage_start(stage));
}

int64_t Loop::stage_at(int64_t step) const {
  int64_t stage = 0;
  const auto last = static_cast<int64_t>(options_.stages.size()) - 1;
  while (stage < last && step >= stage_start(stage + 1)) ++stage;
  return stage;
}

void Loop::resume(const fs::path& checkpoint) {
  const int64_t step = load_state(checkpoint).step, stage = stage_at(step);
  check_step(checkpoint, step, steps_);
  const std::string base = state_.base_fingerprint;
  state_ = load_checkpoint(checkpoint, parts(), step > stage_start(stage) ? Moments::kLoad : Moments::kLeave);
  if (state_.data_fingerprint.empty()) state_.data_fingerprint = data_.fingerprint;
  COCA_CHECK(state_.data_tokens == data_.tokens && state_.tokenizer_fingerprint == data_.tokenizer.fingerprint() &&
                 state_.data_fingerprint == data_.fingerprint,
             "{} was trained on {} of tokenizer {}, content {}; the data given has {} of {}, content {}",
             checkpoint.string(), counted(state_.data_tokens, "token"), state_.tokenizer_fingerprint,
             state_.data_fingerprint, grouped(data_.tokens), data_.tokenizer.fingerprint(), data_.fingerprint);
  COCA_CHECK(state_.base_fingerprint == base,
             "{} is an adapter of a model with fingerprint \"{}\"; the model given has \"{}\"", checkpoint.string(),
             state_.base_fingerprint, base);
}

CheckpointParts Loop::parts() {
  return {spec_, model_.params(), step_.optimizer(), data_.tokenizer, options_.adapter.get(), ranks_, data_.complete};
}

// The validation loss and the exam of a step. false: a stop was requested meanwhile, and neither counts. Several ranks,
// which share the windows, finish them.
bool Loop::measure(StepReport& report) {
  const auto whole = [&] {
    if (data_.validation && !(report.validation_loss = checked_validation(report.loss))) return false;
    if (!data_.exam) return true;
    const auto examine = [&] {
      report.tasks = data_.exam->take(step_.batch().context(), spec_, model_.weights(), ranks_);
    };
    if (ranks_.size() == 1) return run_until_stop(examine);
    examine();
    return true;
  }();
  if (!whole) report.validation_loss.reset();
  return whole;
}

// If training itself is finite, after this step's update too, the validation text is at fault, and the model should not
// be lost.
// nullopt: a stop was requested meanwhile. Several ranks, which share the windows, finish it.
std::optional<double> Loop::checked_validation(double training_loss) {
  double loss = 0;
  const auto validate = [&] {
    loss = validation_loss(step_.batch(), *data_.validation, options_.validation_windows, options_.shape.batch, model_,
                           ranks_);
  };
  if (ranks_.size() > 1)
    validate();
  else if (!run_until_stop(validate))
    return std::nullopt;
  if (std::isfinite(loss) || !std::isfinite(training_loss)) return loss;
  const bool sound =
      first_nonfinite_tensor(model_.master(), ListOrder::kForward).empty() && step_.stays_finite(state_.step - 1);
  if (sound && first_rank())
    log_warning("step {}: the validation loss is {}, the training loss {}: look at the validation text",
                grouped(state_.step), loss, training_loss);
  return loss;
}

// false: a stop was requested before the step was complete, and nothing of it counts.
bool Loop::one_step(StepReport& report) {
  if (const int64_t stage = stage_at(state_.step); stage != stage_) begin_stage(stage);
  report.stage = stage_;
  report.learning_rate = rate_after(state_.step);
  const std::optional<double> loss = step_.forward_backward(state_.step);
  if (!loss) return false;
  report.loss = *loss;
  // A non-finite loss has non-finite gradients somewhere; the update checks the gradients, this checks the loss.
  bool applied = std::isfinite(report.loss);
  if (applied) {
    const optim::UpdateReport done = step_.update(report.learning_rate);
    report.grad_norm = without_nan_sign(done.grad_norm);
    applied = done.outcome == optim::UpdateReport::Outcome::kApplied;
  }
  const std::string where = applied ? "" : step_.locate_nonfinite(state_.step);
  ++state_.step;
  state_.tokens += options_.shape.step_tokens();
  state_.updates = step_.optimizer().updates();
  state_.bad_in_a_row = applied ? 0 : state_.bad_in_a_row + 1;
  if (!applied) {
    ++state_.skipped;
    if (first_rank())
      log_warning("step {}: loss {} and gradient norm {}: update skipped; {}", grouped(state_.step), report.loss,
                  report.grad_norm, where);
    COCA_CHECK_AS(
        kNumeric, state_.bad_in_a_row < options_.max_bad_steps,
        "training stopped at step {}: {} in a row had a non-finite loss or gradient ({}); {}; lower the learning rate "
        "(now {:.3g})",
        grouped(state_.step), counted(state_.bad_in_a_row, "step"), where, newest_text(), report.learning_rate);
  }
  report.step = state_.step;
  report.skipped = state_.skipped;
  return true;
}

// Mean of the finite losses since the last row; the sum is part of the state, so that a resumed run has the same rows.
double Loop::end_interval() {
  const double mean = state_.interval_steps > 0 ? state_.interval_loss / static_cast<double>(state_.interval_steps)
                                                : std::numeric_limits<double>::quiet_NaN();
  state_.interval_loss = 0;
  state_.interval_steps = 0;
  return mean;
}

// A checkpoint that cannot be written does no harm: older ones remain, training continues, and the next may succeed.
void Loop::save(MetricsFile* metrics, Save how) {
  try {
    dist::together(ranks_, [&] {
      if (metrics) metrics->flush();
    });
    save_checkpoint(options_.checkpoints, state_, parts());
    saved_step_ = state_.step;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kIo) throw;
    const std::string kept = newest_text();
    if (how == Save::kMust)
      fail(ErrorKind::kIo, "step {} could not be saved: {}; {}", grouped(state_.step), error.what(), kept);
    if (first_rank())
      log_warning("step {} could not be saved: {}; {}; training continues", grouped(state_.step), error.what(), kept);
  }
}

std::string Loop::newest_text() const {
  const auto newest = latest_checkpoint(options_.checkpoints.out);
  return newest ? fmt::format("the newest checkpoint is {}", newest->string()) : "there is no checkpoint";
}

fs::path Loop::result_folder() const { return options_.checkpoints.out / (options_.adapter ? "adapter" : "model"); }

// Where this step is, and what the folder for the result holds meanwhile.
std::string Loop::stopped_text() const {
  const auto saved = latest_checkpoint(options_.checkpoints.out);
  const std::string result = result_folder().string();
  const std::string held = !io::exists(result)     ? "is written at the end"
                           : state_.model_step > 0 ? fmt::format("is still that of step {}", grouped(state_.model_step))
                                                   : "is still that of an earlier step";
  return fmt::format(
      "stopped at step {} of {}, which is saved in {}; {} {}; to continue, run the command with --resume",
      grouped(state_.step), grouped(steps_), saved ? saved->string() : "", result, held);
}

void Loop::stop(MetricsFile* metrics) {
  if (saved_step_ != state_.step) {
    require_sound_weights();
    save(metrics, Save::kMust);
  } else if (metrics) {
    metrics->flush();
  }
  fail(ErrorKind::kInterrupted, "{}", stopped_text());
}

// Non-finite numbers never become finite again, so they are neither saved nor trained further. No step follows the last
// update and would find weights that are finite and give a loss that is not.
void Loop::require_sound_weights() {
  const std::string bad = first_nonfinite_tensor(model_.master(), ListOrder::kForward);
  COCA_CHECK_AS(kNumeric, bad.empty(),
                "training stopped at step {} of {}: parameter {}; this step is not saved, {}; {}", grouped(state_.step),
                grouped(steps_), bad, newest_text(),
                state_.step > 0 ? "lower the learning rate" : "a model must begin with finite weights");
  if (state_.step < steps_ || state_.bad_in_a_row > 0) return;
  COCA_CHECK_AS(kNumeric, step_.stays_finite(state_.step - 1),
                "after the last update, step {} of {}, the loss is not finite, so this step is not saved and no {} is "
                "written; {}; lower the learning rate",
                grouped(state_.step), grouped(steps_), options_.adapter ? "adapter" : "model", newest_text());
}

// A run that learned nothing, or whose last step has numbers that are not finite, writes no model.
void Loop::require_result() {
  const int64_t good = state_.step - state_.skipped;
  const std::string model = options_.adapter ? "adapter" : "model";
  COCA_CHECK_AS(kNumeric, good > 0,
                "all {} had a non-finite loss or gradient, so no {} is written ({}); lower the learning rate, or the "
                "scale of the initial weights",
                counted(state_.step, "step"), model, newest_text());
  COCA_CHECK_AS(kNumeric, state_.bad_in_a_row == 0,
                "the last {} of {} had a non-finite loss or gradient, so no {} is written; {} and holds the weights "
                "before them; lower the "
                "learning rate, or resume with more steps",
                grouped(state_.bad_in_a_row), counted(state_.step, "step"), model, newest_text());
}

// Whether the validation after the checkpoint that this run began from is not in the metrics yet.
bool Loop::row_is_to_come() {
  const fs::path metrics = options_.checkpoints.out / "metrics.csv";
  bool validated = false;
  dist::together(ranks_, [&] {
    if (first_rank() && state_.row && io::exists(metrics))
      validated = std::ranges::any_of(read_metrics(metrics),
                                      [&](const MetricsRow& row) { return row.step == state_.step && row.measured; });
  });
  const bool known = dist::any(ranks_, validated);
  return state_.row && measures() && !known;
}

StepReport Loop::report_of(const RowToCome& row) const {
  return {.step = state_.step,
          .steps = steps_,
          .stage = stage_at(state_.step - 1),
          .loss = row.loss,
          .learning_rate = rate_after(state_.step - 1),
          .grad_norm = row.grad_norm,
          .validation_loss = {},
          .tasks = {},
          .skipped = state_.skipped};
}

TrainSummary Loop::run(const std::function<void(const StepReport&)>& on_step) {
  const fs::path& out = options_.checkpoints.out;
  std::optional<MetricsFile> file;
  if (!row_is_to_come()) state_.row.reset();
  dist::together(ranks_, [&] {
    if (!first_rank()) return;
    io::write_json(out / options_.checkpoints.config_name, options_.checkpoints.config);
    file.emplace(out / "metrics.csv", state_.step - (state_.row ? 1 : 0), options_.tensorboard,
                 data_.exam ? data_.exam->columns() : std::vector<std::string>());
  });
  MetricsFile* metrics = file ? &*file : nullptr;
  require_sound_weights();
  const int64_t first = state_.step;
  TrainSummary summary;
  double seconds = 0;
  if (first == steps_ && !state_.row)  // nothing left to do: report what the finished run reported
    for (const MetricsRow& row : read_metrics(out / "metrics.csv")) {
      summary.final_loss = row.loss;
      if (!std::isnan(row.validation_loss)) summary.validation_loss = row.validation_loss;
    }
  StepReport report{.steps = steps_};
  const auto finish_step = [&](MetricsFile* to) {
    if (to) to->row(report, summary.final_loss, state_);
    if (on_step) on_step(report);
  };
  const auto validate = [&] {
    state_.row.reset();
    const bool whole = measure(report);
    if (report.validation_loss) summary.validation_loss = report.validation_loss;
    if (!whole && first_rank()) log_warning("step {}: the validation was stopped", grouped(state_.step));
    finish_step(metrics);
  };
  if (state_.row) {  // the checkpoint was written before its validation
    report = report_of(*state_.row);
    summary.final_loss = state_.row->mean_loss;
    validate();
    if (dist::any(ranks_, stop_requested()) && state_.step < steps_) stop(metrics);
  }
  while (state_.step < steps_) {
    report = {.steps = steps_};
    Stopwatch watch;
    if (!one_step(report)) stop(metrics);
    seconds += watch.seconds();
    state_.seconds += watch.seconds();
    report.tokens_per_second = static_cast<double>((state_.step - first) * options_.shape.step_tokens()) / seconds;
    if (std::isfinite(report.loss)) {
      state_.interval_loss += report.loss;
      ++state_.interval_steps;
    }
    const bool last = state_.step == steps_, validates = measures() && (last || due(options_.validation_interval)),
               ends_row = last || due(options_.log_interval) || validates;
    if (ends_row) summary.final_loss = end_interval();
    if (!validates) finish_step(ends_row ? metrics : nullptr);
    if (due(options_.checkpoint_interval) || last) {
      require_sound_weights();
      const bool nothing = last && state_.skipped == state_.step;
      if (nothing && !validates) break;
      if (last) state_.model_step = state_.step;
      if (validates) state_.row = {.mean_loss = summary.final_loss, .loss = report.loss, .grad_norm = report.grad_norm};
      if (!nothing) save(metrics, last ? Save::kMust : Save::kMay);  // before the validation, which can take long
    }
    if (validates) validate();
    if (dist::any(ranks_, stop_requested()) && !last) stop(metrics);  // one rank's signal stops all
  }
  require_result();
  dist::together(ranks_, [&] {
    if (first_rank()) export_model(result_folder(), parts());
  });
  summary.steps = state_.step;
  summary.tokens = state_.tokens;
  summary.skipped = state_.skipped;
  summary.parameters = model::parameter_count(spec_);
  summary.seconds = state_.seconds;
  summary.tokens_per_second = state_.seconds > 0 ? static_cast<double>(state_.tokens) / state_.seconds : 0;
  summary.activation_bytes = activation_bytes();
  return summary;
}

}  // namespace coca::train

// SPDX-License-Identifier: Apache-2.0
#include "coca/train/loop.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "coca/base/clock.h"
#include "coca/base/count.h"
#include "coca/base/log.h"
#include "coca/base/rng.h"
#include "coca/base/sizes.h"
#include "coca/base/spread.h"
#include "coca/base/stop.h"
#include "coca/io/fs.h"
#include "coca/io/hash.h"
#include "coca/io/json_file.h"
#include "coca/model/select.h"
#include "coca/ops/cross_entropy.h"
#include "coca/train/metrics.h"
#include "coca/train/nonfinite.h"

namespace coca::train {

namespace fs = std::filesystem;

static_assert(data::kNoTarget == ops::kIgnoreTarget);

namespace {

// A fingerprint of the model, from the beginning of every tensor.
std::string weights_fingerprint(const model::ParamStore& params) {
  constexpr size_t kBytes = 65536;
  uint32_t sum = 0;
  for (const model::ParamInfo& info : params.infos()) {
    const TensorRef t = params.at(info);
    sum = io::crc32c(t.data, std::min(t.bytes(), kBytes), sum);
  }
  return fmt::format("{:08x}", sum);
}

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

// Locks the out folder and removes what a killed run left there. Returns the newest intact checkpoint, or "".
std::string open_folder(const fs::path& out, Start start, std::optional<io::FolderLock>& lock) {
  io::make_dirs(out);
  lock.emplace(out);
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
  if (!checkpoint.empty()) warn_of_changes(checkpoint, o.checkpoints);
}

Loop::Loop(LoopOptions options, const model::ModelSpec& spec, const LoopData& data, Start start,
           const Initialise& initialise, dist::Communicator& ranks)
    : options_((check_sizes(options, spec, ranks.size()), std::move(options))),
      data_(data),
      ranks_(ranks),
      spec_(spec),
      params_(spec_, options_.adapter ? options_.precision : model::Precision::kF32),
      ring_(options_.share == LoopOptions::Share::kTokens && ranks.size() > 1
                ? std::make_unique<model::RingAttention>(spec_, ranks, options_.shape.length)
                : nullptr),
      decoder_(spec_, options_.shape.batch, ring_ ? ring_->tokens() : options_.shape.length,
               {.recompute = options_.recompute, .precision = options_.precision}),
      ids_({options_.shape.batch, options_.shape.length}, DType::kI32),
      targets_(ids_.shape(), DType::kI32) {
  steps_ = steps_of(options_.stages);
  if (options_.share == LoopOptions::Share::kTokens) options_.slices = ranks_.size();  // one for each rank: its tokens
  if (ring_) {
    decoder_.set_ring(ring_.get());
    COCA_CHECK(data.batches.packing() == Packing::kNone && data.batches.drawn_length(0) == 0,
               "ranks that share the tokens of windows (context_parallel) train on text at its own positions, not on "
               "packed examples or drawn positions");
  }
  if (data.batches.packing() == Packing::kDocuments ||
      (data.validation && data.validation->packing() == Packing::kDocuments))
    starts_ = Tensor(ids_.shape(), DType::kI32);
  if (data.batches.drawn_length(0) > 0) positions_.resize(static_cast<size_t>(ids_.ref().numel()));
  std::string newest;
  dist::together(ranks_, [&] {
    if (first_rank()) newest = open_folder(options_.checkpoints.out, start, lock_);
  });
  newest = dist::broadcast_text(ranks_, 0, newest);
  dist::together(ranks_, [&] {
    if (options_.adapter || newest.empty()) initialise(params_);
  });
  if (options_.adapter) state_.base_fingerprint = weights_fingerprint(params_);
  if (newest.empty()) {
    begin_stage(0);
    state_.data_tokens = data.tokens;
    state_.tokenizer_fingerprint = data.tokenizer.fingerprint();
    state_.data_fingerprint = data.fingerprint;
  } else {
    begin_stage(stage_at(load_state(newest).step));
    dist::together(ranks_, [&] { resume(newest); });
  }
  if (first_rank()) warn_of_start(options_, newest);
  bind_weights();
}

void Loop::bind_weights() {
  const bool rounded = options_.precision != model::Precision::kF32;
  if (rounded && options_.adapter) {
    adapter_copy_ = std::make_unique<model::TensorStore>(options_.adapter->tensors().infos(), options_.precision);
    model::copy_params(context_, options_.adapter->tensors(), *adapter_copy_);
  } else if (rounded) {
    copy_ = std::make_unique<model::ParamStore>(spec_, options_.precision);
    model::copy_params(context_, params_, *copy_);
  }
  weights_ = (copy_ ? *copy_ : params_).weights();
  if (options_.adapter) options_.adapter->bind(adapter_copy_ ? *adapter_copy_ : options_.adapter->tensors(), weights_);
}

void Loop::begin_stage(int64_t stage) {
  stage_ = stage;
  const Stage& s = options_.stages[static_cast<size_t>(stage)];
  grads_.reset();  // frees the old ones before the new ones are allocated
  optimizer_.reset();
  sum_.reset();
  if (options_.adapter) {
    grads_ = std::make_unique<model::TensorStore>(options_.adapter->tensors().infos());
    grad_tensors_ = {};
    grad_tensors_.layers.resize(static_cast<size_t>(spec_.L));
    options_.adapter->bind_gradients(*grads_, grad_tensors_);
  } else {
    auto grads = std::make_unique<model::ParamStore>(spec_, model::select_parameters(spec_, s.train));
    grad_tensors_ = grads->tensors();
    grads_ = std::move(grads);
  }
  if (options_.slices == 1) {
    optimizer_ = std::make_unique<optim::AdamW>(grads_->infos(), s.adamw);
    return;
  }
  const optim::Partition partition = partition_gradients(spec_, *grads_, ranks_.size());
  optimizer_ = std::make_unique<optim::AdamW>(grads_->infos(), s.adamw, partition, ranks_);
  sum_ = std::make_unique<GradientSum>(partition, ranks_);
}

int64_t Loop::stage_start(int64_t stage) const {
  const auto first = options_.stages.begin();
  return std::accumulate(first, first + stage, int64_t{0}, [](int64_t sum, const Stage& s) { return sum + s.steps; });
}

int64_t Loop::stage_at(int64_t step) const {
  int64_t stage = 0;
  const auto last = static_cast<int64_t>(options_.stages.size()) - 1;
  while (stage < last && step >= stage_start(stage + 1)) ++stage;
  return stage;
}

int64_t Loop::trained_parameters() const { return model::element_count(grads_->infos()); }

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

CheckpointParts Loop::parts() { return {spec_, params_, *optimizer_, data_.tokenizer, options_.adapter.get(), ranks_}; }

std::pair<TensorRef, TensorRef> Loop::tokens_here() {
  if (!ring_) return {ids_.ref(), targets_.ref()};
  const auto take = [&](const Tensor& whole, std::vector<int32_t>& mine) -> TensorRef {
    mine = ring_->split().take(whole.values<int32_t>(), ranks_.rank());
    return {mine.data(), DType::kI32, {options_.shape.batch, ring_->tokens()}, kHost};
  };
  return {take(ids_, my_ids_), take(targets_, my_targets_)};
}

void Loop::fill(int64_t step, int64_t part) {
  data_.batches.fill(step, part, {ids_, targets_, starts_.empty() ? MutTensorRef() : starts_.ref(), positions_});
}

std::pair<int64_t, int64_t> Loop::parts_of(int64_t slice) const {
  const int64_t parts = options_.shape.accumulation / (ring_ ? 1 : options_.slices), first = ring_ ? 0 : slice * parts;
  return {first, first + parts};
}

// One slice: its gradients in grads_, the sum of its nll. The loss is the mean over the targets of the whole step, in
// regardless of slices and micro-batches.
double Loop::slice(int64_t step, int64_t slice, Add add) {
  grads_->zero();
  const double scale = 1.0 / static_cast<double>(data_.batches.counted(step));
  const auto [first, end] = parts_of(slice);
  double sum = 0;
  for (int64_t part = first; part < end; ++part) {
    if (sum_ && add == Add::kToSum && part + 1 == end)
      decoder_.on_gradients([this](int64_t layer) { sum_->done(gradient_bucket(spec_, layer), grads_->flat()); });
    fill(step, part);
    if (options_.adapter)
      options_.adapter->set_dropout(
          mix64(options_.dropout_seed ^ mix64(static_cast<uint64_t>(step * options_.shape.accumulation + part))) +
              (ring_ ? static_cast<uint64_t>(slice) : 0),
          weights_);
    const auto [ids, targets] = tokens_here();
    const TensorRef nll =
        decoder_.forward_backward(context_, weights_, ids, targets, static_cast<float>(scale), grad_tensors_,
                                  data_.batches.packing() == Packing::kDocuments ? starts() : TensorRef(), drawn(step));
    for (int64_t i = 0; i < nll.numel(); ++i) sum += nll.as<float>()[i];
  }
  decoder_.on_gradients({});
  if (sum_ && add == Add::kToSum) sum_->finish(grads_->flat());
  return sum;
}

// Slice s is computed by rank s % K.
double Loop::forward_backward(int64_t step) {
  if (sum_) sum_->begin();
  const auto K = static_cast<size_t>(ranks_.size());
  std::vector<double> nll(static_cast<size_t>(options_.slices));
  for (auto s = static_cast<size_t>(ranks_.rank()); s < nll.size(); s += K)
    nll[s] = slice(step, static_cast<int64_t>(s), Add::kToSum);
  dist::share(ranks_, std::span(nll), [&](size_t s) { return s % K; });
  return without_nan_sign(std::accumulate(nll.begin(), nll.end(), 0.0) /
                          static_cast<double>(data_.batches.counted(step)));
}

optim::UpdateReport Loop::update(double learning_rate) {
  model::TensorStore* copy = options_.adapter ? adapter_copy_.get() : copy_.get();
  if (!sum_) return optimizer_->step(context_, learning_rate, *grads_, master(), copy);
  return optimizer_->step_owned(context_, learning_rate, sum_->owned(), grads_->flat(), master(), copy);
}

// Computes the step again, which gives the same numbers, and reports the first that is not finite, on the lowest
// rank where they do.
std::string Loop::locate_nonfinite(int64_t step) {
  const std::vector<std::string> all = dist::gather_texts(ranks_, nonfinite_here(step));
  const auto found = std::ranges::find_if(all, [](const std::string& text) { return !text.empty(); });
  if (found == all.end()) return "only in the norm of the gradients";
  return *found + (all.size() > 1 ? fmt::format(" (rank {})", found - all.begin()) : "");
}

std::string Loop::nonfinite_here(int64_t step) {
  std::string broken = first_nonfinite_tensor(params_, ListOrder::kForward);
  if (broken.empty() && options_.adapter) broken = first_nonfinite_tensor(master(), ListOrder::kForward);
  if (!broken.empty()) return "parameter " + broken;
  for (int64_t s = ranks_.rank(); s < options_.slices; s += ranks_.size()) {
    FirstNonFinite first;
    context_.set_trace([&](std::string_view name, TensorRef value) { first.look(name, value); });
    const double loss = slice(step, s, Add::kNot);
    context_.set_trace({});
    if (!first.found().empty()) return "first in " + first.found();
    if (!std::isfinite(loss)) return "first in the loss, of hidden states that are finite";
    const std::string bad = first_nonfinite_tensor(*grads_, ListOrder::kBackward);
    if (!bad.empty()) return "first in the gradient of " + bad;
  }
  return "";
}

// Mean loss over validation_windows windows spread evenly over all of them, so that it represents the whole text and
// not just its beginning. The last batch is filled up with windows without targets. Ranks take batches in turn, or each
// takes its tokens of every batch. The results are added up in the order of the batches.
double Loop::validate() {
  struct Part {
    double nll = 0;
    int64_t counted = 0;
  };
  const int64_t B = options_.shape.batch, N = options_.shape.length, K = ranks_.size();
  const int64_t all = data_.validation->windows(), windows = std::min(options_.validation_windows, all);
  const int64_t batches = (windows + B - 1) / B, shares = ring_ ? K : 1;  // of a batch
  const bool packed = data_.validation->packing() == Packing::kDocuments;
  if (options_.adapter) options_.adapter->clear_dropout(weights_);
  std::vector<Part> parts(static_cast<size_t>(batches * shares));  // part i is computed by rank i % K
  for (auto i = static_cast<size_t>(ranks_.rank()); i < parts.size(); i += static_cast<size_t>(K)) {
    const int64_t batch = static_cast<int64_t>(i) / shares;
    Part& sum = parts[i];
    std::ranges::fill(targets_.values<int32_t>(), ops::kIgnoreTarget);
    if (packed) std::ranges::fill(starts_.values<int32_t>(), 0);
    for (int64_t row = 0; row < std::min(B, windows - batch * B); ++row) {
      const auto part = [&](Tensor& t) {
        return t.values<int32_t>().subspan(static_cast<size_t>(row * N), static_cast<size_t>(N));
      };
      data_.validation->window(spread_index(batch * B + row, windows, all),
                               {part(ids_), part(targets_), packed ? part(starts_) : std::span<int32_t>()});
    }
    const auto [ids, targets] = tokens_here();
    const TensorRef nll = decoder_.loss(context_, weights_, ids, targets, packed ? starts() : TensorRef());
    for (int64_t m = 0; m < nll.numel(); ++m) {
      sum.nll += nll.as<float>()[m];
      sum.counted += targets.as<int32_t>()[m] != ops::kIgnoreTarget;
    }
  }
  dist::share(ranks_, std::span(parts), [&](size_t i) { return i % static_cast<size_t>(K); });
  Part sum;
  for (const Part& part : parts) {
    sum.nll += part.nll;
    sum.counted += part.counted;
  }
  return without_nan_sign(sum.nll / static_cast<double>(sum.counted));
}

// If training itself is finite, after this step's update too, the validation text is at fault, and the model should not
// be lost.
double Loop::checked_validation(double training_loss) {
  const double loss = validate();
  if (std::isfinite(loss) || !std::isfinite(training_loss)) return loss;
  const bool sound = first_nonfinite_tensor(master(), ListOrder::kForward).empty() && last_step_stays_finite();
  if (sound && first_rank())
    log_warning("step {}: the validation loss is {}, the training loss {}: look at the validation text", state_.step,
                loss, training_loss);
  return loss;
}

void Loop::one_step(StepReport& report) {
  if (const int64_t stage = stage_at(state_.step); stage != stage_) begin_stage(stage);
  report.stage = stage_;
  report.learning_rate =
      optim::learning_rate(options_.stages[static_cast<size_t>(stage_)].schedule, state_.step - stage_start(stage_));
  report.loss = forward_backward(state_.step);
  // A non-finite loss has non-finite gradients somewhere; the update checks the gradients, this checks the loss.
  bool applied = std::isfinite(report.loss);
  if (applied) {
    const optim::UpdateReport done = update(report.learning_rate);
    report.grad_norm = without_nan_sign(done.grad_norm);
    applied = done.outcome == optim::UpdateReport::Outcome::kApplied;
  }
  const std::string where = applied ? "" : locate_nonfinite(state_.step);
  ++state_.step;
  state_.tokens += options_.shape.step_tokens();
  state_.updates = optimizer_->updates();
  state_.bad_in_a_row = applied ? 0 : state_.bad_in_a_row + 1;
  if (!applied) {
    ++state_.skipped;
    if (first_rank())
      log_warning("step {}: loss {} and gradient norm {}: update skipped; {}", state_.step, report.loss,
                  report.grad_norm, where);
    COCA_CHECK_AS(
        kNumeric, state_.bad_in_a_row < options_.max_bad_steps,
        "training stopped at step {}: {} in a row had a non-finite loss or gradient ({}); lower the learning rate "
        "(now {}) or resume from an earlier checkpoint",
        state_.step, counted(state_.bad_in_a_row, "step"), where, report.learning_rate);
  }
  report.step = state_.step;
  report.skipped = state_.skipped;
}

// Mean of the finite losses since the last row; the sum is part of the state, so that a resumed run has the same rows.
void Loop::log_row(MetricsFile* metrics, const StepReport& report, TrainSummary& summary) {
  summary.final_loss = state_.interval_steps > 0 ? state_.interval_loss / static_cast<double>(state_.interval_steps)
                                                 : std::numeric_limits<double>::quiet_NaN();
  if (metrics) metrics->row(report, summary.final_loss, state_);
  state_.interval_loss = 0;
  state_.interval_steps = 0;
}

// A checkpoint that cannot be written does no harm: older ones remain, training continues, and the next may succeed.
void Loop::save(MetricsFile* metrics, Save how) {
  try {
    dist::together(ranks_, [&] {
      if (metrics) metrics->flush();
    });
    save_checkpoint(options_.checkpoints, state_, parts());
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kIo) throw;
    const std::string kept = newest_text();
    if (how == Save::kMust) fail(ErrorKind::kIo, "step {} could not be saved: {}; {}", state_.step, error.what(), kept);
    if (first_rank())
      log_warning("step {} could not be saved: {}; {}; training goes on", state_.step, error.what(), kept);
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

// Whether the loss of the last step's windows is finite with the present weights, without dropout, as the model will be
// used later. Ranks share the windows as they do in training.
bool Loop::last_step_stays_finite() {
  if (options_.adapter) options_.adapter->clear_dropout(weights_);
  double sum = 0;
  for (int64_t s = ranks_.rank(); s < options_.slices; s += ranks_.size()) {
    const auto [first, end] = parts_of(s);
    for (int64_t part = first; part < end; ++part) {
      fill(state_.step - 1, part);
      const auto [ids, targets] = tokens_here();
      const bool packed = data_.batches.packing() == Packing::kDocuments;
      const TensorRef nll =
          decoder_.loss(context_, weights_, ids, targets, packed ? starts() : TensorRef(), drawn(state_.step - 1));
      for (int64_t i = 0; i < nll.numel(); ++i) sum += nll.as<float>()[i];
    }
  }
  return !dist::any(ranks_, !std::isfinite(sum));
}

// Non-finite numbers never become finite again, so they are neither saved nor trained further. No step follows the last
// update and would find weights that are finite and give a loss that is not.
void Loop::require_sound_weights() {
  const std::string bad = first_nonfinite_tensor(master(), ListOrder::kForward);
  COCA_CHECK_AS(kNumeric, bad.empty(),
                "training stopped at step {} of {}: parameter {}; this step is not saved, {}; {}", state_.step, steps_,
                bad, newest_text(),
                state_.step > 0 ? "lower the learning rate" : "a model must begin with finite weights");
  if (state_.step < steps_ || state_.bad_in_a_row > 0) return;
  COCA_CHECK_AS(kNumeric, last_step_stays_finite(),
                "after the last update, step {} of {}, the loss is not finite, so this step is not saved and no {} is "
                "written; {}; lower the learning rate",
                state_.step, steps_, options_.adapter ? "adapter" : "model", newest_text());
}

// A run that learned nothing, or whose last step has numbers that are not finite, writes no model.
void Loop::require_result() {
  const int64_t good = state_.step - state_.skipped;
  const std::string model = options_.adapter ? "adapter" : "model";
  COCA_CHECK_AS(kNumeric, good > 0,
                "all {} had a non-finite loss or gradient, so no {} is written ({}); lower the learning rate or what "
                "scales the weights",
                counted(state_.step, "step"), model, newest_text());
  COCA_CHECK_AS(kNumeric, state_.bad_in_a_row == 0,
                "the last {} of {} had a non-finite loss or gradient, so no {} is written; {} and holds the weights "
                "before them; lower the "
                "learning rate, or resume with more steps",
                grouped(state_.bad_in_a_row), counted(state_.step, "step"), model, newest_text());
}

TrainSummary Loop::run(const std::function<void(const StepReport&)>& on_step) {
  const fs::path& out = options_.checkpoints.out;
  std::optional<MetricsFile> file;
  dist::together(ranks_, [&] {
    if (!first_rank()) return;
    io::write_json(out / options_.checkpoints.config_name, options_.checkpoints.config);
    file.emplace(out / "metrics.csv", state_.step, options_.tensorboard);
  });
  MetricsFile* metrics = file ? &*file : nullptr;
  require_sound_weights();
  const int64_t first = state_.step;
  TrainSummary summary;
  double seconds = 0;
  if (first == steps_)  // nothing left to do: report what the finished run reported
    for (const MetricsRow& row : read_metrics(out / "metrics.csv")) {
      summary.final_loss = row.loss;
      if (!std::isnan(row.validation_loss)) summary.validation_loss = row.validation_loss;
    }
  while (state_.step < steps_) {
    StepReport report{.steps = steps_};
    Stopwatch watch;
    one_step(report);
    seconds += watch.seconds();
    state_.seconds += watch.seconds();
    report.tokens_per_second = static_cast<double>((state_.step - first) * options_.shape.step_tokens()) / seconds;
    if (std::isfinite(report.loss)) {
      state_.interval_loss += report.loss;
      ++state_.interval_steps;
    }
    const bool last = state_.step == steps_;
    if (data_.validation && (last || due(options_.validation_interval)))
      summary.validation_loss = report.validation_loss = checked_validation(report.loss);
    if (last || due(options_.log_interval) || report.validation_loss) log_row(metrics, report, summary);
    if (on_step) on_step(report);
    const bool stop = dist::any(ranks_, stop_requested()) && !last;  // one rank's signal stops all
    if (stop || due(options_.checkpoint_interval) || last) {
      require_sound_weights();
      if (last && state_.skipped == state_.step) break;
      if (last) state_.model_step = state_.step;
      save(metrics, stop || last ? Save::kMust : Save::kMay);
    }
    if (stop) fail(ErrorKind::kInterrupted, "{}", stopped_text());
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
  summary.activation_bytes = decoder_.activation_bytes();
  return summary;
}

}  // namespace coca::train

// SPDX-License-Identifier: Apache-2.0
#include "coca/train/trainer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "coca/base/clock.h"
#include "coca/base/log.h"
#include "coca/base/stop.h"
#include "coca/io/csv.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/ops/cross_entropy.h"
#include "coca/train/metrics.h"

namespace coca::train {

namespace {

std::optional<int64_t> widen(std::optional<int32_t> id) { return id ? std::optional<int64_t>(*id) : std::nullopt; }

model::ModelSpec spec_for(const TrainConfig& config, const TrainData& data) {
  check_config(config);
  COCA_CHECK(data.tokens.vocab_size() <= data.tokenizer.vocab_size(),
             "training data uses {} ids, but the tokenizer has {}: they do not belong together", data.tokens.vocab_size(), data.tokenizer.vocab_size());
  return make_spec(config, padded_vocabulary(data.tokenizer), widen(data.tokenizer.bos_id()), widen(data.tokenizer.eos_id()));
}

// A resumed run ends in the same bits only under the same options; some may change without harm.
void warn_of_changes(TrainConfig before, TrainConfig now) {
  const std::set<std::string> harmless = {"text", "validation_text", "tokenizer", "max_bad_steps", "out", "log_interval", "validation_interval",
                                          "validation_windows", "checkpoint_interval", "keep_checkpoints", "recompute"};
  const auto was = io::options_to_json(before), is = io::options_to_json(now);
  for (const auto& [key, value] : is.items())
    if (!harmless.contains(key) && was[key] != value)
      log_warning("resuming with {} = {}; the run so far had {}", key, value.dump(), was[key].dump());
}

}  // namespace

int64_t padded_vocabulary(const text::Tokenizer& tokenizer) { return (tokenizer.vocab_size() + 15) / 16 * 16; }

Trainer::Trainer(const TrainConfig& config, const TrainData& data, Start start)
    : config_(config), data_(data), spec_(spec_for(config, data)), params_(spec_), grads_(spec_),
      optimizer_(spec_, make_adamw(config)), decoder_(spec_, config.batch, config.length, {.recompute = config.recompute, .precision = config.precision}),
      batches_(config, data.tokens, data.tokenizer), ids_({config.batch, config.length}, DType::kI32),
      targets_({config.batch, config.length}, DType::kI32) {
  const auto newest = latest_checkpoint(config.out);
  if (start == Start::kFresh) {
    COCA_CHECK(!newest, "{} already holds a training run ({}); resume it, or choose another folder", config.out,
               newest ? newest->string() : "");
  }
  if (start == Start::kResume && newest) {
    resume(*newest);
  } else {
    model::initialise(spec_, static_cast<uint64_t>(config.seed), params_);
    state_.data_tokens = data.tokens.size();
    state_.tokenizer_fingerprint = data.tokenizer.fingerprint();
    state_.data_fingerprint = data.tokens.content_fingerprint();
  }
  if (config.precision != model::Precision::kF32) {
    copy_ = std::make_unique<model::ParamStore>(spec_, config.precision);
    model::copy_params(context_, params_, *copy_);
  }
  if (data.validation && config.validation_windows > 0) {
    COCA_CHECK(data.validation->size() > config.length, "validation text has {} tokens; one window needs {}", data.validation->size(), config.length + 1);
    validator_ = std::make_unique<model::Decoder>(spec_, weights());
  }
}

void Trainer::resume(const std::filesystem::path& checkpoint) {
  state_ = load_checkpoint(checkpoint, parts());
  const std::string content = data_.tokens.content_fingerprint();
  if (state_.data_fingerprint.empty()) state_.data_fingerprint = content;
  COCA_CHECK(state_.data_tokens == data_.tokens.size() && state_.tokenizer_fingerprint == data_.tokenizer.fingerprint() &&
                 state_.data_fingerprint == content,
             "{} was trained on {} tokens of tokenizer {}, content {}; the data given has {} of {}, content {}", checkpoint.string(),
             state_.data_tokens, state_.tokenizer_fingerprint, state_.data_fingerprint, data_.tokens.size(), data_.tokenizer.fingerprint(),
             content);
  COCA_CHECK(state_.step <= config_.steps, "{} is at step {}, beyond the {} steps asked for", checkpoint.string(), state_.step, config_.steps);
  warn_of_changes(load_train_config(checkpoint), config_);
}

CheckpointParts Trainer::parts() { return {spec_, params_, optimizer_, data_.tokenizer}; }

double Trainer::forward_backward(int64_t step) {
  grads_.zero();
  const int64_t counted = config_.accumulation * config_.batch * config_.length;
  double sum = 0;
  for (int64_t part = 0; part < config_.accumulation; ++part) {
    batches_.fill(step, part, ids_, targets_);
    const TensorRef nll = decoder_.forward_backward(context_, weights(), ids_, targets_,
                                                    static_cast<float>(1.0 / static_cast<double>(counted)), grads_.tensors());
    for (int64_t i = 0; i < nll.numel(); ++i) sum += nll.as<float>()[i];
  }
  return sum / static_cast<double>(counted);
}

// Mean loss over the first validation_windows windows, side by side without overlap.
double Trainer::validate() {
  const int64_t N = config_.length;
  const int64_t windows = std::min(config_.validation_windows, (data_.validation->size() - 1) / N);
  std::vector<int32_t> window(static_cast<size_t>(N) + 1);
  double sum = 0;
  for (int64_t first = 0; first < windows; first += config_.batch) {
    const int64_t rows = std::min(config_.batch, windows - first);
    Tensor ids({rows, N}, DType::kI32), targets({rows, N}, DType::kI32), nll({rows * N});
    for (int64_t row = 0; row < rows; ++row) {
      data_.validation->read((first + row) * N, window);
      std::copy_n(window.begin(), N, ids.values<int32_t>().begin() + row * N);
      std::copy_n(window.begin() + 1, N, targets.values<int32_t>().begin() + row * N);
    }
    const TensorRef hidden = validator_->forward(context_, ids);
    ops::lm_loss_forward(context_, {.x = hidden, .w = weights().head, .targets = targets.ref().reshape({rows * N}), .nll = nll});
    for (const float x : nll.values<float>()) sum += x;
  }
  return sum / static_cast<double>(windows * N);
}

void Trainer::one_step(StepReport& report) {
  report.learning_rate = optim::learning_rate(make_schedule(config_), state_.step);
  report.loss = forward_backward(state_.step);
  // A non-finite loss has non-finite gradients somewhere; the update looks at the gradients, this at the loss.
  bool applied = std::isfinite(report.loss);
  if (applied) {
    const optim::UpdateReport update = optimizer_.step(context_, report.learning_rate, grads_, params_, copy_.get());
    report.grad_norm = update.grad_norm;
    applied = update.outcome == optim::UpdateReport::Outcome::kApplied;
  }
  ++state_.step;
  state_.tokens += config_.accumulation * config_.batch * config_.length;
  state_.updates = optimizer_.updates();
  state_.bad_in_a_row = applied ? 0 : state_.bad_in_a_row + 1;
  if (!applied) {
    ++state_.skipped;
    log_warning("step {}: loss {} and gradient norm {}: update skipped", state_.step, report.loss, report.grad_norm);
    COCA_CHECK_AS(kNumeric, state_.bad_in_a_row < config_.max_bad_steps,
                  "training stopped at step {}: {} steps in a row had a non-finite loss or gradient; lower the learning rate "
                  "(now {}) or resume from an earlier checkpoint", state_.step, state_.bad_in_a_row, report.learning_rate);
  }
  report.step = state_.step;
  report.skipped = state_.skipped;
}

// Mean of the finite losses since the last row; the sum is part of the state, so that a resumed run has the same rows.
void Trainer::log_row(MetricsFile& metrics, const StepReport& report, TrainSummary& summary) {
  summary.final_loss = state_.interval_steps > 0 ? state_.interval_loss / static_cast<double>(state_.interval_steps)
                                                 : std::numeric_limits<double>::quiet_NaN();
  metrics.row(report, summary.final_loss, state_);
  state_.interval_loss = 0;
  state_.interval_steps = 0;
}

TrainSummary Trainer::run(const std::function<void(const StepReport&)>& on_step) {
  io::make_dirs(config_.out);
  io::write_json(std::filesystem::path(config_.out) / "train_config.json", io::options_to_json(config_));
  MetricsFile metrics(std::filesystem::path(config_.out) / "metrics.csv", state_.step);
  const int64_t step_tokens = config_.accumulation * config_.batch * config_.length;
  const int64_t first = state_.step;
  TrainSummary summary;
  double seconds = 0;
  if (first == config_.steps)  // nothing left to do: say what the finished run said
    for (const MetricsRow& row : read_metrics(std::filesystem::path(config_.out) / "metrics.csv")) {
      summary.final_loss = row.loss;
      if (!std::isnan(row.validation_loss)) summary.validation_loss = row.validation_loss;
    }
  while (state_.step < config_.steps) {
    StepReport report{.steps = config_.steps};
    Stopwatch watch;
    one_step(report);
    seconds += watch.seconds();
    state_.seconds += watch.seconds();
    report.tokens_per_second = static_cast<double>((state_.step - first) * step_tokens) / seconds;
    if (std::isfinite(report.loss)) {
      state_.interval_loss += report.loss;
      ++state_.interval_steps;
    }
    const bool last = state_.step == config_.steps;
    if (validator_ && (last || (config_.validation_interval > 0 && state_.step % config_.validation_interval == 0)))
      summary.validation_loss = report.validation_loss = validate();
    if (last || state_.step % config_.log_interval == 0 || report.validation_loss) log_row(metrics, report, summary);
    if (on_step) on_step(report);
    const bool stop = stop_requested() && !last;
    if (stop || (config_.checkpoint_interval > 0 && state_.step % config_.checkpoint_interval == 0) || last) {
      metrics.flush();
      save_checkpoint(config_, state_, parts());
    }
    if (stop) fail(ErrorKind::kInterrupted, "stopped at step {} of {}; saved in {}, resume with --resume", state_.step, config_.steps, config_.out);
  }
  export_model(std::filesystem::path(config_.out) / "model", parts());
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

// SPDX-License-Identifier: Apache-2.0
#include "coca/study/work.h"

#include <algorithm>

#include "coca/base/clock.h"
#include "coca/eval/passkey_protocol.h"
#include "coca/eval/perplexity_windows.h"
#include "coca/model/decoder.h"
#include "coca/train/config.h"

namespace coca::study {

namespace {

constexpr size_t index_of(Work work) { return static_cast<size_t>(work); }

int64_t window_tokens(const StudyConfig& c, int64_t length, std::span<const int64_t> documents) {
  eval::Protocol protocol;
  protocol.stride = c.stride;
  const eval::WindowShape shape = eval::window_shape(protocol, length, std::nullopt);
  int64_t tokens = 0;
  for (const int64_t document : documents)
    for (const eval::WindowSpan& span : eval::plan_windows(document, protocol, shape)) tokens += span.tokens();
  return tokens;
}

}  // namespace

Flops MethodWork::all() const {
  const auto times = static_cast<double>(evaluations);
  return {flops[0], times * flops[1], times * flops[2]};
}

MethodWork work_of(const StudyConfig& c, const std::string& method, int64_t vocabulary,
                   std::span<const int64_t> test_tokens) {
  const train::TrainConfig config = train_config(c, method, c.seeds[0], c.out);
  const model::ModelSpec spec = train::make_spec(config, vocabulary, std::nullopt, std::nullopt);
  MethodWork w{.parameters = model::parameter_count(spec)};
  w.step_flops = 3.0 * static_cast<double>(c.batch * c.length) * model::forward_flops_per_token(spec, c.length);
  w.trained_tokens = c.steps * c.batch * c.length;
  w.flops[index_of(Work::kTraining)] = static_cast<double>(c.steps) * w.step_flops;
  for (const int64_t length : task_lengths(c))
    w.flops[index_of(Work::kTraining)] += static_cast<double>(kExams * c.tasks.windows * length) *
                                          static_cast<double>(c.tasks.tasks.size()) *
                                          model::forward_flops_per_token(spec, length);
  const auto depths = static_cast<int64_t>(eval::PasskeyProtocol().depths.size());
  for (const int64_t length : eval_lengths(c)) {
    const double each = model::forward_flops_per_token(spec, length);
    const int64_t ppl = window_tokens(c, length, test_tokens),
                  passkey = c.passkey_share > 0 ? depths * c.passkey_trials * length : 0;
    w.ppl_tokens += ppl;
    w.passkey_tokens += passkey;
    w.flops[index_of(Work::kPerplexity)] += static_cast<double>(ppl) * each;
    w.flops[index_of(Work::kPasskey)] += static_cast<double>(passkey) * each;
  }
  const bool again = std::ranges::find(c.ntk_methods, method) != c.ntk_methods.end();
  w.evaluations = 1 + (again ? static_cast<int64_t>(c.factors.size()) : 0);
  w.memory = 16 * w.parameters + c.batch * static_cast<int64_t>(model::TrainingDecoder::activation_bytes(
                                               spec, 1, c.length, {.precision = c.precision}));
  return w;
}

WorkMeter::WorkMeter(std::function<double()> clock) : clock_(std::move(clock)) {
  if (!clock_) clock_ = [watch = Stopwatch()] { return watch.seconds(); };
  last_ = clock_();
}

void WorkMeter::plan(const Flops& more) {
  for (size_t i = 0; i < kWorks; ++i) left_[i] += more[i];
}

void WorkMeter::leave_out(Work work, double flops) {
  double& left = left_[index_of(work)];
  left = std::max(0.0, left - flops);
}

void WorkMeter::advance(Work work, double flops) {
  const double now = clock_();
  leave_out(work, flops);
  done_[index_of(work)] += flops;
  seconds_[index_of(work)] += now - last_;
  last_ = now;
}

std::optional<double> WorkMeter::seconds_left() const {
  double done = 0, seconds = 0, left = 0;
  for (size_t i = 0; i < kWorks; ++i) {
    done += done_[i];
    seconds += seconds_[i];
  }
  if (done <= 0 || seconds <= 0) return std::nullopt;
  for (size_t i = 0; i < kWorks; ++i) left += left_[i] * (done_[i] > 0 ? seconds_[i] / done_[i] : seconds / done);
  return left;
}

}  // namespace coca::study

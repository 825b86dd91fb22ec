// SPDX-License-Identifier: Apache-2.0
#include "coca/train/step.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "coca/base/count.h"
#include "coca/base/rng.h"
#include "coca/base/stop.h"
#include "coca/train/nonfinite.h"

namespace coca::train {

Step::Step(const model::ModelSpec& spec, const LoopOptions& o, const LoopData& data, TrainedModel& model,
           dist::Communicator& ranks)
    : spec_(spec), options_(o), batches_(data.batches), model_(model), ranks_(ranks), batch_(spec, o, data, ranks) {}

void Step::begin_stage(const Stage& stage) {
  grads_.reset();  // frees the old ones before the new ones are allocated
  optimizer_.reset();
  sum_.reset();
  DeviceMemory* memory = batch_.context().memory();
  if (const model::Adapter* adapter = model_.adapter()) {
    grads_ = std::make_unique<model::TensorStore>(model_.master().infos(), model::Precision::kF32, memory);
    grad_tensors_ = {};
    grad_tensors_.layers.resize(static_cast<size_t>(spec_.L));
    adapter->bind_gradients(*grads_, grad_tensors_);
  } else {
    auto grads = std::make_unique<model::ParamStore>(spec_, model::select_parameters(spec_, stage.train), memory);
    grad_tensors_ = grads->tensors();
    grads_ = std::move(grads);
  }
  if (options_.slices == 1) {
    optimizer_ = std::make_unique<optim::AdamW>(grads_->infos(), stage.adamw, memory);
    return;
  }
  const optim::Partition partition = partition_gradients(spec_, *grads_, ranks_.size());
  optimizer_ = std::make_unique<optim::AdamW>(grads_->infos(), stage.adamw, partition, ranks_);
  sum_ = std::make_unique<GradientSum>(partition, ranks_);
}

std::pair<int64_t, int64_t> Step::parts_of(int64_t slice) const {
  const bool all = batch_.shares_tokens();
  const int64_t parts = options_.shape.accumulation / (all ? 1 : options_.slices), first = all ? 0 : slice * parts;
  return {first, first + parts};
}

// Whether to give the step up before this micro-batch, which is not its first: a step can take hours. All ranks have
// the same number of micro-batches, so they ask each other at the same places. A single rank stops within one.
bool Step::stops_before(int64_t slice, int64_t part) {
  const bool first = slice < ranks_.size() && part == parts_of(slice).first;
  return !first && dist::any(ranks_, stop_requested());
}

// Processes one slice: adds its gradients to grads_ and returns the sum of its nll, or nullopt if it was given up. The
// loss is the mean over the targets of the whole step, for any number of slices and micro-batches.
std::optional<double> Step::slice(int64_t step, int64_t slice, Add add) {
  grads_->zero();
  const double scale = 1.0 / static_cast<double>(batches_.counted(step));
  const auto [first, end] = parts_of(slice);
  const std::function<void(int64_t)> send = [this](int64_t layer) {
    sum_->done(gradient_bucket(spec_, layer), grads_->flat());
  };
  for (int64_t part = first; part < end; ++part) {
    if (add == Add::kToSum && stops_before(slice, part)) return std::nullopt;
    batch_.fill(step, part);
    const auto place = static_cast<uint64_t>(step * options_.shape.accumulation + part);
    model_.set_dropout(mix64(options_.dropout_seed ^ mix64(place)) +
                       (batch_.shares_tokens() ? static_cast<uint64_t>(slice) : 0));
    const bool sends = sum_ && add == Add::kToSum && part + 1 == end;
    batch_.forward_backward(model_.weights(), static_cast<float>(scale), grad_tensors_,
                            sends ? send : std::function<void(int64_t)>());
  }
  if (sum_ && add == Add::kToSum) sum_->finish(grads_->flat());
  return batch_.nll();
}

// Rank s % K computes slice s.
std::optional<double> Step::forward_backward(int64_t step) {
  if (ranks_.size() > 1) return whole_step(step);
  std::optional<double> loss;
  return run_until_stop([&] { loss = whole_step(step); }) ? loss : std::nullopt;
}

std::optional<double> Step::whole_step(int64_t step) {
  if (sum_) sum_->begin();
  const auto K = static_cast<size_t>(ranks_.size());
  std::vector<double> nll(static_cast<size_t>(options_.slices));
  for (auto s = static_cast<size_t>(ranks_.rank()); s < nll.size(); s += K) {
    const std::optional<double> sum = slice(step, static_cast<int64_t>(s), Add::kToSum);
    if (!sum) return std::nullopt;
    nll[s] = *sum;
  }
  dist::share(ranks_, std::span(nll), [&](size_t s) { return s % K; });
  return without_nan_sign(std::accumulate(nll.begin(), nll.end(), 0.0) / static_cast<double>(batches_.counted(step)));
}

optim::UpdateReport Step::update(double learning_rate) {
  Context& cx = batch_.context();
  if (!sum_) return optimizer_->step(cx, learning_rate, *grads_, model_.master(), model_.copy());
  return optimizer_->step_owned(cx, learning_rate, sum_->owned(), grads_->flat(), model_.master(), model_.copy());
}

std::string Step::locate_nonfinite(int64_t step) {
  const std::vector<std::string> all = dist::gather_texts(ranks_, nonfinite_here(step));
  const auto found = std::ranges::find_if(all, [](const std::string& text) { return !text.empty(); });
  if (found == all.end()) return "only in the norm of the gradients";
  return *found + (all.size() > 1 ? fmt::format(" (rank {})", found - all.begin()) : "");
}

std::string Step::nonfinite_here(int64_t step) {
  if (const std::string broken = model_.first_nonfinite(); !broken.empty()) return "parameter " + broken;
  for (int64_t s = ranks_.rank(); s < options_.slices; s += ranks_.size()) {
    FirstNonFinite first(batch_.context());
    batch_.context().set_trace([&](std::string_view name, TensorRef value) { first.look(name, value); });
    const double loss = *slice(step, s, Add::kNot);
    batch_.context().set_trace({});
    if (!first.found().empty()) return "first in " + first.found();
    if (!std::isfinite(loss)) return "first in the loss, although the hidden states are finite";
    const std::string bad = first_nonfinite_tensor(*grads_, ListOrder::kBackward);
    if (!bad.empty()) return "first in the gradient of " + bad;
  }
  return "";
}

// Ranks share the windows as in training.
bool Step::stays_finite(int64_t step) {
  model_.clear_dropout();
  double sum = 0;
  for (int64_t s = ranks_.rank(); s < options_.slices; s += ranks_.size()) {
    const auto [first, end] = parts_of(s);
    for (int64_t part = first; part < end; ++part) {
      batch_.fill(step, part);
      sum += batch_.loss(model_.weights()).nll;
    }
  }
  return !dist::any(ranks_, !std::isfinite(sum));
}

}  // namespace coca::train

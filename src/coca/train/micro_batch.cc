// SPDX-License-Identifier: Apache-2.0
#include "coca/train/micro_batch.h"

#include <algorithm>

#include "coca/base/count.h"
#include "coca/base/spread.h"
#include "coca/ops/cross_entropy.h"
#include "coca/train/trained_model.h"

namespace coca::train {

static_assert(data::kNoTarget == ops::kIgnoreTarget);

namespace {

std::unique_ptr<model::RingAttention> ring_of(const model::ModelSpec& spec, const LoopOptions& o,
                                              dist::Communicator& ranks) {
  if (o.share != LoopOptions::Share::kTokens || ranks.size() == 1) return nullptr;
  return std::make_unique<model::RingAttention>(spec, ranks, o.shape.length);
}

}  // namespace

MicroBatch::MicroBatch(const model::ModelSpec& spec, const LoopOptions& o, const LoopData& data,
                       dist::Communicator& ranks)
    : options_(o),
      data_(data),
      ranks_(ranks),
      ring_(ring_of(spec, o, ranks)),
      decoder_(spec, o.shape.batch, ring_ ? ring_->tokens() : o.shape.length,
               {.recompute = o.recompute, .precision = o.precision, .memory = context_.memory()}),
      ids_({o.shape.batch, o.shape.length}, DType::kI32),
      targets_(ids_.shape(), DType::kI32) {
  if (ring_) {
    decoder_.set_ring(ring_.get());
    COCA_CHECK(data.batches.packing() == Packing::kNone && data.batches.drawn_length(0) == 0,
               "ranks that share the tokens of windows (context_parallel) cannot train on packed examples or at drawn "
               "positions");
  }
  if (data.batches.packing() == Packing::kDocuments ||
      (data.validation && data.validation->packing() == Packing::kDocuments))
    starts_ = Tensor(ids_.shape(), DType::kI32);
  if (data.batches.drawn_length(0) > 0) positions_.resize(static_cast<size_t>(ids_.ref().numel()));
}

void MicroBatch::fill(int64_t step, int64_t part) {
  packed_ = data_.batches.packing() == Packing::kDocuments;
  drawn_length_ = data_.batches.drawn_length(step);
  data_.batches.fill(step, part, {ids_, targets_, starts_.empty() ? MutTensorRef() : starts_.ref(), positions_});
}

void MicroBatch::fill_validation(int64_t first, int64_t windows, const std::function<int64_t(int64_t)>& window_at) {
  packed_ = data_.validation->packing() == Packing::kDocuments;
  drawn_length_ = 0;
  std::ranges::fill(targets_.values<int32_t>(), ops::kIgnoreTarget);
  if (packed_) std::ranges::fill(starts_.values<int32_t>(), 0);
  const int64_t N = options_.shape.length;
  for (int64_t row = 0; row < windows; ++row) {
    const auto part = [&](Tensor& t) {
      return t.values<int32_t>().subspan(static_cast<size_t>(row * N), static_cast<size_t>(N));
    };
    data_.validation->window(window_at(first + row),
                             {part(ids_), part(targets_), packed_ ? part(starts_) : std::span<int32_t>()});
  }
}

std::pair<TensorRef, TensorRef> MicroBatch::tokens_here() {
  if (!ring_) return {ids_.ref(), targets_.ref()};
  const auto take = [&](const Tensor& whole, std::vector<int32_t>& mine) -> TensorRef {
    mine = ring_->split().take(whole.values<int32_t>(), ranks_.rank());
    return {mine.data(), DType::kI32, {options_.shape.batch, ring_->tokens()}, kHost};
  };
  return {take(ids_, my_ids_), take(targets_, my_targets_)};
}

model::DrawnPositions MicroBatch::drawn() const {
  if (drawn_length_ == 0) return {};
  return {.positions = positions_, .scaling_length = drawn_length_};
}

MicroBatch::Loss MicroBatch::loss(const model::Weights& weights) {
  const auto [ids, targets] = tokens_here();
  const TensorRef nll = fetched_.now(context_, decoder_.loss(context_, weights, ids, targets, starts(), drawn()));
  Loss sum;
  for (int64_t m = 0; m < nll.numel(); ++m) {
    sum.nll += nll.as<float>()[m];
    sum.targets += targets.as<int32_t>()[m] != ops::kIgnoreTarget;
  }
  return sum;
}

void MicroBatch::forward_backward(const model::Weights& weights, float scale, model::MutWeights& grads,
                                  const std::function<void(int64_t layer)>& on_gradients) {
  decoder_.on_gradients(on_gradients);
  const auto [ids, targets] = tokens_here();
  const TensorRef nll = decoder_.forward_backward(context_, weights, ids, targets, scale, grads, starts(), drawn());
  decoder_.on_gradients({});
  if (calls_ == nll_.size()) nll_.emplace_back();
  nll_[calls_++].queue(context_, nll);
}

double MicroBatch::nll() {
  context_.synchronize();
  double all = 0;
  for (size_t i = 0; i < calls_; ++i) {
    const TensorRef nll = nll_[i].ref();
    double sum = 0;
    for (int64_t m = 0; m < nll.numel(); ++m) sum += nll.as<float>()[m];
    all += sum;
  }
  calls_ = 0;
  return all;
}

double validation_loss(MicroBatch& batch, const ValidationSource& validation, int64_t wanted, int64_t B,
                       TrainedModel& model, dist::Communicator& ranks) {
  const int64_t K = ranks.size(), all = validation.windows(), windows = std::min(wanted, all);
  const int64_t batches = (windows + B - 1) / B,
                shares = batch.shares_tokens() ? K : 1;  // shares: the parts of a batch
  model.clear_dropout();
  std::vector<MicroBatch::Loss> parts(static_cast<size_t>(batches * shares));  // rank i % K computes part i
  for (auto i = static_cast<size_t>(ranks.rank()); i < parts.size(); i += static_cast<size_t>(K)) {
    const int64_t first = static_cast<int64_t>(i) / shares * B;
    batch.fill_validation(first, std::min(B, windows - first),
                          [&](int64_t n) { return spread_index(n, windows, all); });
    parts[i] = batch.loss(model.weights());
  }
  dist::share(ranks, std::span(parts), [&](size_t i) { return i % static_cast<size_t>(K); });
  MicroBatch::Loss sum;
  for (const MicroBatch::Loss& part : parts) {
    sum.nll += part.nll;
    sum.targets += part.targets;
  }
  return without_nan_sign(sum.nll / static_cast<double>(sum.targets));
}

}  // namespace coca::train

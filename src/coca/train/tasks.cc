// SPDX-License-Identifier: Apache-2.0
#include "coca/train/tasks.h"

#include <algorithm>

#include "coca/base/rng.h"
#include "coca/model/decoder.h"
#include "coca/ops/linear.h"
#include "coca/tensor/transfer.h"

namespace coca::train {

namespace {

constexpr double kShareWithText = 0.25;
constexpr int64_t kBatchTokens = 8192, kLogitRows = 128;  // at a time, in an exam

std::span<int32_t> row_of(const MutTensorRef& t, int64_t row) {
  return {t.as<int32_t>() + row * t.size(1), static_cast<size_t>(t.size(1))};
}

// The windows of one batch of an exam, and what the model says to them.
class Examined {
 public:
  Examined(std::vector<data::TaskWindow> windows, int64_t length)
      : B_(static_cast<int64_t>(windows.size())), N_(length) {
    for (const data::TaskWindow& w : windows) {
      ids_.insert(ids_.end(), w.ids.begin(), w.ids.end());
      targets_.insert(targets_.end(), w.targets.begin(), w.targets.end());
    }
  }

  void run(Context& cx, model::Decoder& decoder) {
    const TensorRef hidden = decoder.forward(cx, {ids_.data(), DType::kI32, {B_, N_}, kHost});
    const int64_t rows = B_ * N_, V = decoder.spec().V;
    right_.assign(static_cast<size_t>(rows), false);
    Tensor logits({std::min(kLogitRows, rows), V}, DType::kF32, cx.memory());
    FetchedTensor fetched;
    for (int64_t first = 0; first < rows; first += kLogitRows) {
      const int64_t count = std::min(kLogitRows, rows - first);
      const auto begin = targets_.begin() + first;
      if (std::all_of(begin, begin + count, [](int32_t id) { return id == data::kNoTarget; })) continue;
      const MutTensorRef part = logits.ref().narrow(0, 0, count);
      ops::linear_forward(cx, {.x = hidden.narrow(0, first, count), .w = decoder.weights().head, .y = part});
      const float* values = fetched.now(cx, part).as<float>();
      for (int64_t i = 0; i < count; ++i) {
        const auto chosen =
            static_cast<int32_t>(std::max_element(values + i * V, values + (i + 1) * V) - values - i * V);
        right_[static_cast<size_t>(first + i)] = chosen == targets_[static_cast<size_t>(first + i)];
      }
    }
  }

  void add_to(TaskScore& score) const {
    for (size_t begin = 0; begin < targets_.size();) {
      size_t end = begin;
      bool whole = true;
      for (; end < targets_.size() && targets_[end] != data::kNoTarget && (end == begin || end % window() != 0);
           ++end) {
        ++score.tokens;
        score.right_tokens += right_[end];
        whole = whole && right_[end];
      }
      score.answers += end > begin;
      score.right_answers += end > begin && whole;
      begin = std::max(end, begin + 1);
    }
  }

 private:
  size_t window() const { return static_cast<size_t>(N_); }

  int64_t B_, N_;
  std::vector<int32_t> ids_, targets_;
  std::vector<bool> right_;
};

}  // namespace

int64_t task_vocabulary(const data::TaskOptions& options, int64_t length) {
  return options.vocabulary > 0 ? options.vocabulary : std::max<int64_t>(length, 256);
}

data::TokenFile no_text(const TrainConfig& c, const text::Tokenizer& tokenizer) {
  const int64_t tokens = std::max(c.length, c.positions.target_length) + 1;
  return data::TokenFile::from_tokens(std::vector<int32_t>(static_cast<size_t>(tokens)), {0, tokens},
                                      tokenizer.vocab_size());
}

double task_share(const data::TaskOptions& options, const text::Tokenizer& tokenizer) {
  if (options.tasks.empty()) return 0;
  return tokenizer.kind() == text::kSymbolsKind ? 1 : options.share.value_or(kShareWithText);
}

void check_tasks(const TrainConfig& c, const text::Tokenizer& tokenizer) {
  if (c.tasks.tasks.empty()) return;
  const data::TaskMaker maker(c.tasks.sizes, c.length, tokenizer);
  for (const data::Task task : c.tasks.tasks) {
    maker.check(task, c.length);
    for (const int64_t multiple : c.tasks.multiples) maker.check(task, multiple * c.length);
  }
}

TaskBatches::TaskBatches(const BatchSource& source, const BatchShape& shape, const data::TaskOptions& options,
                         const data::TaskMaker& maker, const data::TokenFile& text, double share, uint64_t seed)
    : source_(source), shape_(shape), tasks_(options.tasks), maker_(maker), text_(text), share_(share), seed_(seed) {}

std::optional<data::TaskWindow> TaskBatches::window(int64_t k) const {
  Rng rng(seed_, mix64(static_cast<uint64_t>(k)) ^ 0x7a5c);
  if (rng.uniform() >= share_) return std::nullopt;
  return maker_.window(tasks_[rng.below(tasks_.size())], shape_.length, rng, text_);
}

void TaskBatches::fill(int64_t step, int64_t part, const Batch& out) const {
  source_.fill(step, part, out);
  for (int64_t row = 0; row < shape_.batch; ++row)
    if (const auto task = window((step * shape_.accumulation + part) * shape_.batch + row)) {
      std::ranges::copy(task->ids, row_of(out.ids, row).begin());
      std::ranges::copy(task->targets, row_of(out.targets, row).begin());
    }
}

int64_t TaskBatches::counted(int64_t step) const {
  const int64_t windows = shape_.accumulation * shape_.batch;
  int64_t count = 0;
  for (int64_t k = step * windows; k < (step + 1) * windows; ++k) {
    const auto task = window(k);
    count +=
        task ? std::ranges::count_if(task->targets, [](int32_t id) { return id != data::kNoTarget; }) : shape_.length;
  }
  return count;
}

std::string task_column(data::Task task, int64_t length) { return fmt::format("{}_{}", enum_name(task), length); }

TaskExam::TaskExam(const data::TaskOptions& options, int64_t length, uint64_t seed, const data::TaskMaker& maker,
                   const data::TokenFile& text)
    : options_(options), length_(length), seed_(seed), maker_(maker), text_(text) {}

std::vector<std::string> TaskExam::columns() const {
  std::vector<std::string> out;
  for (const data::Task task : options_.tasks)
    for (const int64_t multiple : options_.multiples)
      for (const char* what : {"", "_whole"}) out.push_back(task_column(task, multiple * length_) + what);
  return out;
}

std::vector<TaskScore> TaskExam::take(Context& cx, const model::ModelSpec& spec, const model::Weights& weights,
                                      dist::Communicator& ranks) const {
  model::Decoder decoder(spec, weights);
  std::vector<TaskScore> parts;  // of batches; rank i % K computes part i
  const auto K = static_cast<size_t>(ranks.size());
  for (const data::Task task : options_.tasks)
    for (const int64_t multiple : options_.multiples) {
      const int64_t N = multiple * length_, most = std::max<int64_t>(1, kBatchTokens / N);
      for (int64_t first = 0; first < options_.windows; first += most) {
        parts.push_back({.task = task, .length = N});
        if ((parts.size() - 1) % K != static_cast<size_t>(ranks.rank())) continue;
        std::vector<data::TaskWindow> windows;
        for (int64_t i = first; i < std::min(first + most, options_.windows); ++i) {
          // Training windows have other streams, with near certainty.
          Rng rng(seed_ ^ mix64(static_cast<uint64_t>(task) << 56 ^ static_cast<uint64_t>(N)),
                  mix64(static_cast<uint64_t>(i)) ^ 0xe8a3);
          windows.push_back(maker_.window(task, N, rng, text_));
        }
        Examined examined(std::move(windows), N);
        examined.run(cx, decoder);
        examined.add_to(parts.back());
      }
    }
  dist::share(ranks, std::span(parts), [&](size_t i) { return i % K; });
  std::vector<TaskScore> scores;
  for (const TaskScore& part : parts) {
    if (scores.empty() || scores.back().task != part.task || scores.back().length != part.length) {
      scores.push_back(part);
      continue;
    }
    TaskScore& sum = scores.back();
    sum.tokens += part.tokens;
    sum.right_tokens += part.right_tokens;
    sum.answers += part.answers;
    sum.right_answers += part.right_answers;
  }
  return scores;
}

}  // namespace coca::train

// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "coca/base/clock.h"
#include "coca/base/memory.h"
#include "coca/base/stop.h"
#include "coca/model/decoder.h"
#include "coca/ops/cross_entropy.h"

namespace coca::eval {

namespace {

struct Window {
  const int32_t* text = nullptr;  // its first token of text
  int64_t tokens = 0;             // of text
  int64_t first_target = 0;       // index among them; the last target is the last token
  double nll = 0, bytes = 0;      // sums over the targets, filled in when it is run

  int64_t targets() const { return tokens - first_target; }
};

// All windows of one length, in the order of the documents.
struct Plan {
  PerplexityResult result;
  std::vector<Window> windows;
  int64_t bos_tokens = 0;  // 0 or 1 in front of each window
};

Plan plan_windows(std::span<const std::vector<int32_t>> documents, const PerplexityOptions& o, int64_t W,
                  std::optional<int32_t> bos) {
  Plan plan;
  plan.bos_tokens = bos ? 1 : 0;
  const int64_t room = W - plan.bos_tokens;
  PerplexityResult& r = plan.result;
  r.length = W;
  r.bos = bos;
  r.stride = std::min(o.stride, room);
  for (const std::vector<int32_t>& document : documents) {
    if (document.size() < 2) {
      ++r.skipped_documents;
      continue;
    }
    if (o.max_documents > 0 && r.documents == o.max_documents) break;
    auto N = static_cast<int64_t>(document.size());
    if (o.max_tokens > 0) N = std::min(N, o.max_tokens);
    ++r.documents;
    r.short_documents += N < room;
    int64_t prev = 0, e = 0;
    for (int64_t b = 0; e < N; b += r.stride) {
      e = std::min(b + room, N);
      Window w{.text = document.data() + b, .tokens = e - b, .first_target = prev - b};
      if (w.first_target == 0 && !bos) w.first_target = 1;  // nothing in the window predicts it
      prev = e;
      if (w.targets() < 1) continue;
      r.longest_window = std::max(r.longest_window, w.tokens + plan.bos_tokens);
      r.scored_tokens += w.targets();
      r.run_tokens += w.tokens + plan.bos_tokens;
      plan.windows.push_back(w);
    }
  }
  r.windows = static_cast<int64_t>(plan.windows.size());
  COCA_CHECK(r.windows > 0, "perplexity: none of the {} documents has two tokens or more", documents.size());
  return plan;
}

// Runs windows of equal size and fills in their sums.
class WindowRunner {
 public:
  WindowRunner(Context& cx, const model::ModelSpec& spec, const model::Weights& weights,
               std::span<const int32_t> id_bytes)
      : cx_(cx), weights_(weights), decoder_(spec, weights), id_bytes_(id_bytes) {}

  void run(std::span<Window*> batch, std::optional<int32_t> bos) {
    const auto B = static_cast<int64_t>(batch.size());
    const int64_t front = bos ? 1 : 0, N = batch[0]->tokens + front;
    ids_.clear();
    for (const Window* w : batch) {
      if (bos) ids_.push_back(*bos);
      ids_.insert(ids_.end(), w->text, w->text + w->tokens);
    }
    const TensorRef hidden = decoder_.forward(cx_, {ids_.data(), DType::kI32, {B, N}});
    for (int64_t b = 0; b < B; ++b) score(hidden.narrow(0, b * N, N), *batch[static_cast<size_t>(b)], front);
  }

 private:
  // The row before a target predicts it. Window by window, so that the batch does not decide the chunks.
  void score(TensorRef hidden, Window& w, int64_t front) {
    const int64_t rows = w.targets();
    if (nll_.empty() || nll_.size(0) < rows) nll_ = Tensor({rows});
    const int32_t* targets = w.text + w.first_target;
    ops::lm_loss_forward(cx_, {.x = hidden.narrow(0, w.first_target + front - 1, rows),
                               .w = weights_.head,
                               .targets = {targets, DType::kI32, {rows}},
                               .nll = nll_.ref().narrow(0, 0, rows)});
    const float* nll = nll_.ref().as<float>();
    w.nll = w.bytes = 0;
    for (int64_t i = 0; i < rows; ++i) {
      w.nll += static_cast<double>(nll[i]);
      const auto id = static_cast<size_t>(targets[i]);
      if (id < id_bytes_.size()) w.bytes += id_bytes_[id];
    }
  }

  Context& cx_;
  const model::Weights& weights_;
  model::Decoder decoder_;
  std::span<const int32_t> id_bytes_;
  std::vector<int32_t> ids_;
  Tensor nll_;
};

// Sums in the order of the documents, whatever the order in which the windows were run.
void summarise(Plan& plan, const PerplexityOptions& o) {
  PerplexityResult& r = plan.result;
  double nll = 0, bytes = 0, window_means = 0, squares = 0;
  for (const Window& w : plan.windows) {
    nll += w.nll;
    bytes += w.bytes;
    window_means += w.nll / static_cast<double>(w.targets());
  }
  const auto tokens = static_cast<double>(r.scored_tokens), windows = static_cast<double>(r.windows);
  r.nll = nll / tokens;
  r.perplexity = std::exp(r.nll);
  r.window_mean_perplexity = std::exp(window_means / windows);
  if (!o.id_bytes.empty() && bytes > 0) r.bits_per_byte = nll / std::numbers::ln2 / bytes;
  if (r.windows > 1) {
    for (const Window& w : plan.windows) {
      const double off = w.nll - static_cast<double>(w.targets()) * r.nll;
      squares += off * off;
    }
    r.standard_error = std::sqrt(squares * windows / (windows - 1)) / tokens;
  }
  r.tokens_per_second = r.seconds > 0 ? static_cast<double>(r.run_tokens) / r.seconds : 0;
  r.peak_resident_bytes = peak_resident_bytes();
}

void check_options(const PerplexityOptions& o) {
  COCA_CHECK(!o.lengths.empty(), "perplexity: no length given");
  for (const int64_t W : o.lengths) COCA_CHECK(W >= 2, "perplexity: length {} must be at least 2", W);
  COCA_CHECK(o.stride >= 1, "perplexity: stride {} must be at least 1", o.stride);
  COCA_CHECK(o.batch_tokens >= 1, "perplexity: batch_tokens {} must be at least 1", o.batch_tokens);
  COCA_CHECK(o.max_tokens == 0 || o.max_tokens >= 2,
             "perplexity: max_tokens {} must be 0 (all) or at least 2", o.max_tokens);
  COCA_CHECK(o.max_documents >= 0, "perplexity: max_documents {} must be at least 0", o.max_documents);
}

}  // namespace

std::vector<PerplexityResult> perplexity(Context& cx, const model::ModelSpec& model_spec,
                                         const model::Weights& weights,
                                         std::span<const std::vector<int32_t>> documents,
                                         const PerplexityOptions& o) {
  check_options(o);
  const model::ModelSpec spec = with_scaling(model_spec, o.scaling);
  const std::optional<int32_t> bos = bos_token(spec, o.bos);
  std::vector<Plan> plans;
  PerplexityProgress progress;
  for (const int64_t W : o.lengths) {
    plans.push_back(plan_windows(documents, o, W, bos));
    progress.total_tokens += plans.back().result.run_tokens;
  }
  WindowRunner runner(cx, spec, weights, o.id_bytes);
  std::vector<PerplexityResult> results;
  for (Plan& plan : plans) {
    const Stopwatch watch;
    std::vector<Window*> order;
    for (Window& w : plan.windows) order.push_back(&w);
    // Longest first: memory is asked for once, and a length that does not fit fails at once.
    std::stable_sort(order.begin(), order.end(),
                     [](const Window* a, const Window* b) { return a->tokens > b->tokens; });
    double nll = 0;
    int64_t scored = 0;
    for (size_t i = 0; i < order.size();) {
      COCA_CHECK_AS(kInterrupted, !stop_requested(), "perplexity: stopped at length {}, {} of {} tokens done",
                    plan.result.length, progress.done_tokens, progress.total_tokens);
      const int64_t N = order[i]->tokens + plan.bos_tokens;
      const auto most = static_cast<size_t>(std::max<int64_t>(1, o.batch_tokens / N));
      size_t end = i;
      for (; end < order.size() && end < i + most && order[end]->tokens == order[i]->tokens; ++end) {
      }
      runner.run(std::span(order).subspan(i, end - i), bos);
      for (; i < end; ++i) {
        nll += order[i]->nll;
        scored += order[i]->targets();
        progress.done_tokens += N;
      }
      progress.length = plan.result.length;
      progress.perplexity = std::exp(nll / static_cast<double>(scored));
      if (o.progress) o.progress(progress);
    }
    plan.result.seconds = watch.seconds();
    summarise(plan, o);
    results.push_back(plan.result);
  }
  return results;
}

}  // namespace coca::eval

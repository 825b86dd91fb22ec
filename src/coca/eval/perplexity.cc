// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/perplexity.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <numbers>

#include "coca/base/clock.h"
#include "coca/base/count.h"
#include "coca/base/memory.h"
#include "coca/base/stop.h"
#include "coca/eval/perplexity_windows.h"
#include "coca/eval/share.h"
#include "coca/model/decoder.h"
#include "coca/model/windows.h"
#include "coca/ops/cross_entropy.h"

namespace coca::eval {

namespace {

struct Window {
  WindowSpan span;
  const Text* text = nullptr;
  PerplexitySums sums;  // over its targets, filled in when it is run
  bool done = false;    // on all ranks
};

// All windows of one length, in the order of the texts.
struct Plan {
  PerplexityResult result;
  std::vector<Window> windows;
  int64_t front = 0;  // tokens before each window's text
};

void count_windows(Plan& plan) {
  PerplexityResult& r = plan.result;
  r.windows = static_cast<int64_t>(plan.windows.size());
  r.longest_window = r.scored_tokens = r.run_tokens = r.most_scored = 0;
  r.fewest_scored = std::numeric_limits<int64_t>::max();
  double squares = 0;
  for (const Window& w : plan.windows) {
    const int64_t tokens = w.span.tokens() + plan.front, scored = w.span.targets();
    r.longest_window = std::max(r.longest_window, tokens);
    r.run_tokens += tokens;
    r.scored_tokens += scored;
    r.fewest_scored = std::min(r.fewest_scored, scored);
    r.most_scored = std::max(r.most_scored, scored);
    squares += static_cast<double>(scored) * static_cast<double>(scored);
  }
  r.equal_windows =
      squares > 0 ? static_cast<double>(r.scored_tokens) * static_cast<double>(r.scored_tokens) / squares : 0;
}

Plan plan_length(const Texts& texts, const Protocol& p, int64_t W, std::optional<int32_t> bos) {
  const WindowShape shape = window_shape(p, W, bos);
  Plan plan{.front = shape.front};
  PerplexityResult& r = plan.result;
  r.length = W;
  r.bos = bos;
  r.stride = shape.stride;
  r.documents = texts.documents;
  r.document_tokens = texts.document_tokens;
  r.skipped_documents = texts.passed_over;
  for (const Text& text : texts.texts) {
    const auto N = static_cast<int64_t>(text.ids.size());
    r.short_documents += N < shape.room;
    for (const WindowSpan& span : plan_windows(N, p, shape)) plan.windows.push_back({.span = span, .text = &text});
  }
  count_windows(plan);
  r.planned_windows = r.windows;
  COCA_CHECK(r.windows > 0,
             "lengths holds {}: the protocol scores no window of {} with {}; give shorter lengths or more text", W,
             counted(r.documents, "document"), counted(r.document_tokens, "token"));
  return plan;
}

// Runs windows of equal size and fills in their sums.
class WindowRunner {
 public:
  WindowRunner(Context& cx, const model::ModelSpec& spec, const model::Weights& weights, const PerplexityOptions& o,
               std::optional<int32_t> bos)
      : cx_(cx), weights_(weights), decoder_(spec, weights), o_(o), bos_(bos) {}

  void run(std::span<Window* const> batch, int64_t front) {
    const auto B = static_cast<int64_t>(batch.size());
    const int64_t N = batch[0]->span.tokens() + front;
    ids_.clear();
    for (const Window* w : batch) {
      if (front > 0) ids_.push_back(*bos_);
      const auto text = w->text->ids.begin();
      ids_.insert(ids_.end(), text + w->span.begin, text + w->span.end);
      if (bos_ && o_.protocol.bos_place == BosPlace::kFirstToken) ids_[ids_.size() - static_cast<size_t>(N)] = *bos_;
    }
    const bool split = o_.share == Share::kTokens && N >= 2 * o_.ranks.size();
    if (split) split_over_ranks(N);
    const Chunk whole[] = {{0, N, 0}};
    const auto halves = split ? ring_->split().chunks(ring_->rank()) : std::array<Chunk, 2>{};
    const int64_t n = split ? ring_->tokens() : N;
    decoder_.set_ring(split ? ring_.get() : nullptr);
    const TensorRef hidden = decoder_.forward(cx_, {ids_.data(), DType::kI32, {B, n}, kHost});
    for (int64_t b = 0; b < B; ++b)
      score(hidden.narrow(0, b * n, n), split ? std::span<const Chunk>(halves) : whole, *batch[static_cast<size_t>(b)],
            front);
    if (split) add_over_ranks(batch);
  }

 private:
  using Chunk = model::RingSplit::Chunk;

  // Of ids_, rows of N, this rank's tokens stay.
  void split_over_ranks(int64_t N) {
    if (!ring_ || ring_->split().length() != N)
      ring_ = std::make_unique<model::RingAttention>(decoder_.spec(), o_.ranks, N);
    ids_ = ring_->split().take<int32_t>(ids_, ring_->rank());
  }

  void add_over_ranks(std::span<Window* const> batch) {
    std::vector<double> mine;
    for (const Window* w : batch) mine.push_back(w->sums.nll);
    const std::vector<double> all = dist::all_gather_values<double>(o_.ranks, mine);
    for (size_t i = 0; i < batch.size(); ++i) {
      batch[i]->sums.nll = 0;
      for (size_t at = i; at < all.size(); at += batch.size()) batch[i]->sums.nll += all[at];
    }
  }

  // The row before a target predicts it; the rows here are these chunks of the window's. Window by window, so that the
  // batch does not decide the chunks of the loss.
  void score(TensorRef hidden, std::span<const Chunk> held, Window& w, int64_t front) {
    const int64_t rows = w.span.targets(), first_row = w.span.first_target - w.span.begin + front - 1;
    if (nll_.empty() || nll_.size(0) < rows) nll_ = Tensor({rows});
    w.sums = {.windows = 1, .scored_tokens = rows};
    int64_t row = 0;  // in hidden, of the chunk's first
    for (const Chunk& c : held) {
      const int64_t begin = std::max(first_row, c.begin), n = std::min(first_row + rows, c.begin + c.count) - begin;
      if (n > 0) {
        ops::lm_loss_forward(
            cx_, {.x = hidden.narrow(0, row + begin - c.begin, n),
                  .w = weights_.head,
                  .targets = {w.text->ids.data() + w.span.first_target + begin - first_row, DType::kI32, {n}, kHost},
                  .nll = nll_.ref().narrow(0, 0, n)});
        const float* nll = nll_.ref().as<float>();
        for (int64_t i = 0; i < n; ++i) w.sums.nll += static_cast<double>(nll[i]);
      }
      row += c.count;
    }
    if (!o_.id_text.empty()) {
      const TextSize size = text_size(o_.id_text, w.text->ids, w.span.first_target, w.span.end_target);
      w.sums.bytes = size.bytes;
      w.sums.words = size.words;
    }
  }

  Context& cx_;
  const model::Weights& weights_;
  model::Decoder decoder_;
  const PerplexityOptions& o_;
  std::optional<int32_t> bos_;
  std::vector<int32_t> ids_;
  Tensor nll_;
  std::unique_ptr<model::RingAttention> ring_;
};

void add(PerplexitySums& all, const PerplexitySums& more) {
  all.windows += more.windows;
  all.scored_tokens += more.scored_tokens;
  all.bytes += more.bytes;
  all.words += more.words;
  all.nll += more.nll;
}

// Sums in the order of the documents, whatever the order in which the windows were run.
void summarise(Plan& plan, const Protocol& p) {
  PerplexityResult& r = plan.result;
  PerplexitySums all;
  double window_means = 0, squares = 0;
  for (const Window& w : plan.windows) {
    add(all, w.sums);
    window_means += w.sums.mean_nll();
    if (p.join == Join::kJoined) continue;
    if (r.by_document.empty() || r.by_document.back().document != w.text->document)
      r.by_document.push_back(
          {.document = w.text->document, .tokens = static_cast<int64_t>(w.text->ids.size()), .sums = {}});
    add(r.by_document.back().sums, w.sums);
  }
  const auto tokens = static_cast<double>(r.scored_tokens), windows = static_cast<double>(r.windows);
  r.nll = all.mean_nll();
  r.perplexity = all.perplexity();
  r.window_mean_perplexity = std::exp(window_means / windows);
  r.words = all.words;
  r.bits_per_byte = all.bits_per_byte();
  r.word_perplexity = all.word_perplexity();
  if (r.windows > 1) {
    for (const Window& w : plan.windows) {
      const double off = w.sums.nll - static_cast<double>(w.sums.scored_tokens) * r.nll;
      squares += off * off;
    }
    r.standard_error = std::sqrt(squares * windows / (windows - 1)) / tokens;
  }
  r.tokens_per_second = r.seconds > 0 ? static_cast<double>(r.run_tokens) / r.seconds : 0;
  r.peak_resident_bytes = peak_resident_bytes();
}

// The windows in batches of equal length, the longest first.
std::vector<std::vector<Window*>> batches_of(Plan& plan, int64_t batch_tokens) {
  std::vector<Window*> order;
  for (Window& w : plan.windows) order.push_back(&w);
  std::stable_sort(order.begin(), order.end(),
                   [](const Window* a, const Window* b) { return a->span.tokens() > b->span.tokens(); });
  std::vector<std::vector<Window*>> batches;
  for (Window* w : order) {
    const auto most = static_cast<size_t>(std::max<int64_t>(1, batch_tokens / (w->span.tokens() + plan.front)));
    if (batches.empty() || batches.back().size() >= most || batches.back().front()->span.tokens() != w->span.tokens())
      batches.emplace_back();
    batches.back().push_back(w);
  }
  return batches;
}

// Runs all windows of a plan; batches go to the ranks in turn, or all of them to all.
void run_plan(Plan& plan, WindowRunner& runner, const PerplexityOptions& o, PerplexityProgress& progress) {
  const bool together = o.share == Share::kTokens;
  const size_t K = together ? 1 : static_cast<size_t>(o.ranks.size()),
               rank = together ? 0 : static_cast<size_t>(o.ranks.rank());
  const std::vector<std::vector<Window*>> batches = batches_of(plan, o.batch_tokens);
  const auto stopped = [&] {
    return fmt::format("perplexity: stopped at length {}, {} of {} done", plan.result.length,
                       grouped(progress.done_tokens), counted(progress.total_tokens, "token"));
  };
  PerplexitySums done;
  for (size_t first = 0; first < batches.size(); first += K) {
    const size_t end = std::min(first + K, batches.size()), mine = first + rank;
    const auto part = [&] {
      if (mine < end) runner.run(batches[mine], plan.front);
    };
    if (together) {  // whose parts send messages
      if (dist::any(o.ranks, stop_requested())) throw dist::SharedError(ErrorKind::kInterrupted, stopped());
      part();
    } else {
      do_round(o.ranks, stopped, part);
    }
    if (!together) share_batches<Window>(o.ranks, std::span(batches).subspan(first, end - first), &Window::sums);
    for (size_t b = first; b < end; ++b)
      for (Window* w : batches[b]) {
        w->done = true;
        add(done, w->sums);
        progress.done_tokens += w->span.tokens() + plan.front;
      }
    progress.length = plan.result.length;
    progress.perplexity = done.perplexity();
    if (o.progress) o.progress(progress);
  }
}

// The windows that were run stay. False where there are none.
bool keep_finished(Plan& plan) {
  std::erase_if(plan.windows, [](const Window& w) { return !w.done; });
  if (plan.windows.empty()) return false;
  count_windows(plan);
  return true;
}

struct Plans {
  std::optional<int32_t> bos;
  Texts texts;
  std::vector<Plan> lengths;
};

Plans plan_all(const model::ModelSpec& spec, std::span<const std::vector<int32_t>> documents,
               const PerplexityOptions& o) {
  check_protocol(o.protocol);
  model::require_causal(spec, "perplexity");
  COCA_CHECK(o.batch_tokens >= 1, "batch_tokens is {}; expected at least 1", o.batch_tokens);
  Plans plans{.bos = bos_token(with_scaling(spec, o.scaling), o.protocol.bos)};
  plans.texts = make_texts(documents, o.protocol, plans.bos);
  for (const int64_t W : o.protocol.lengths)
    plans.lengths.push_back(plan_length(plans.texts, o.protocol, W, plans.bos));
  return plans;
}

}  // namespace

double PerplexitySums::perplexity() const { return std::exp(mean_nll()); }

std::optional<double> PerplexitySums::word_perplexity() const {
  return words > 0 ? std::optional(std::exp(nll / static_cast<double>(words))) : std::nullopt;
}

std::optional<double> PerplexitySums::bits_per_byte() const {
  return bytes > 0 ? std::optional(nll / std::numbers::ln2 / static_cast<double>(bytes)) : std::nullopt;
}

std::vector<PerplexityResult> perplexity(Context& cx, const model::ModelSpec& spec, const model::Weights& weights,
                                         std::span<const std::vector<int32_t>> documents, const PerplexityOptions& o) {
  std::vector<PerplexityResult> results;
  perplexity(cx, spec, weights, documents, o, results);
  return results;
}

void perplexity(Context& cx, const model::ModelSpec& model_spec, const model::Weights& weights,
                std::span<const std::vector<int32_t>> documents, const PerplexityOptions& o,
                std::vector<PerplexityResult>& results) {
  Plans plans = plan_all(model_spec, documents, o);
  const model::ModelSpec spec = with_scaling(model_spec, o.scaling);
  PerplexityProgress progress;
  for (const Plan& plan : plans.lengths) progress.total_tokens += plan.result.run_tokens;
  WindowRunner runner(cx, spec, weights, o, plans.bos);
  for (Plan& plan : plans.lengths) {
    const Stopwatch watch;
    const auto close = [&] {
      plan.result.seconds = watch.seconds();
      summarise(plan, o.protocol);
      results.push_back(std::move(plan.result));
    };
    try {
      run_plan(plan, runner, o, progress);
    } catch (...) {
      if (keep_finished(plan)) close();
      throw;
    }
    close();
  }
}

std::vector<PerplexityResult> plan_perplexity(const model::ModelSpec& spec,
                                              std::span<const std::vector<int32_t>> documents,
                                              const PerplexityOptions& o) {
  std::vector<PerplexityResult> results;
  for (Plan& plan : plan_all(spec, documents, o).lengths) results.push_back(std::move(plan.result));
  return results;
}

}  // namespace coca::eval

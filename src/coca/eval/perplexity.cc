// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/perplexity.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <numbers>
#include <ranges>

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
  // With by_position, sums of the nll by range of context; then, where they are wanted, the nll of each target.
  std::vector<double> details;
};

// All windows of one length, in the order of the texts.
struct Plan {
  PerplexityResult result;
  std::vector<Window> windows;
  int64_t front = 0;            // tokens before each window's text
  int64_t lead = 0;             // of bos, before each text
  std::vector<int64_t> bounds;  // of ranges of context, with their end; empty: not wanted
  bool each_target = false;     // whether the nll of each is kept

  size_t ranges() const { return bounds.empty() ? 0 : bounds.size() - 1; }
  size_t details(const Window& w) const { return ranges() + (each_target ? static_cast<size_t>(w.span.targets()) : 0); }
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

Plan plan_length(const Texts& texts, const PerplexityOptions& o, int64_t W, std::optional<int32_t> bos) {
  const Protocol& p = o.protocol;
  const WindowShape shape = window_shape(p, W, bos);
  Plan plan{.front = shape.front,
            .lead = bos && p.bos_place != BosPlace::kEveryWindow ? 1 : 0,
            .each_target = o.keep_losses == KeepLosses::kYes || o.key_tokens != nullptr};
  if (o.by_position == ByPosition::kYes) plan.bounds = context_bounds(p.reach == Reach::kNext ? W : W - 1);
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

  void run(std::span<Window* const> batch, const Plan& plan) {
    const int64_t front = plan.front;
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
            plan);
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
    for (const Window* w : batch) {
      mine.push_back(w->sums.nll);
      mine.insert(mine.end(), w->details.begin(), w->details.end());
    }
    const std::vector<double> all = dist::all_gather_values<double>(o_.ranks, mine);
    size_t i = 0;
    const auto sum_of = [&](size_t at) {
      double sum = 0;
      for (; at < all.size(); at += mine.size()) sum += all[at];
      return sum;
    };
    for (Window* w : batch) {
      w->sums.nll = sum_of(i++);
      for (double& detail : w->details) detail = sum_of(i++);
    }
  }

  // Calls take(target, nll) for the targets [first, end) whose rows are here: the row before a target predicts it, and
  // these chunks of the window's rows are held. Window by window, so that the batch does not decide the chunks of the
  // loss.
  template <typename Take>
  void each_loss(TensorRef hidden, std::span<const Chunk> held, const Window& w, int64_t front, int64_t first,
                 int64_t end, const Take& take) {
    const int64_t rows = end - first, first_row = first - w.span.begin + front - 1;
    if (rows < 1) return;
    if (nll_.empty() || nll_.size(0) < rows) nll_ = Tensor({rows});
    int64_t row = 0;  // in hidden, of the chunk's first
    for (const Chunk& c : held) {
      const int64_t begin = std::max(first_row, c.begin), n = std::min(first_row + rows, c.begin + c.count) - begin;
      if (n > 0) {
        const int64_t target = first + begin - first_row;
        ops::lm_loss_forward(cx_, {.x = hidden.narrow(0, row + begin - c.begin, n),
                                   .w = weights_.head,
                                   .targets = {w.text->ids.data() + target, DType::kI32, {n}, kHost},
                                   .nll = nll_.ref().narrow(0, 0, n)});
        const float* nll = nll_.ref().as<float>();
        for (int64_t i = 0; i < n; ++i) take(target + i, static_cast<double>(nll[i]));
      }
      row += c.count;
    }
  }

  void score(TensorRef hidden, std::span<const Chunk> held, Window& w, const Plan& plan) {
    w.sums = {.windows = 1, .scored_tokens = w.span.targets()};
    w.details.assign(plan.details(w), 0);
    const auto add_to_range = [&](int64_t target, double nll) {
      if (plan.ranges() == 0) return;
      const auto range = std::ranges::upper_bound(plan.bounds, target - w.span.begin + plan.front) - 1;
      w.details[static_cast<size_t>(range - plan.bounds.begin())] += nll;
    };
    // Targets that do not count apart from those that do, so that these give the same bits either way.
    if (plan.ranges() > 0)
      each_loss(hidden, held, w, plan.front, w.span.begin + 1 - plan.front, w.span.first_target, add_to_range);
    each_loss(hidden, held, w, plan.front, w.span.first_target, w.span.end_target, [&](int64_t target, double nll) {
      w.sums.nll += nll;
      add_to_range(target, nll);
      if (plan.each_target) w.details[plan.ranges() + static_cast<size_t>(target - w.span.first_target)] = nll;
    });
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

// Every window has targets with 1, 2, ... tokens of context.
std::vector<PositionLoss> losses_by_position(const Plan& plan) {
  std::vector<PositionLoss> positions;
  for (size_t i = 0; i < plan.ranges(); ++i) {
    const int64_t from = plan.bounds[i], end = plan.bounds[i + 1];
    std::map<int64_t, GroupSum> by_document;
    for (const Window& w : plan.windows) {
      GroupSum& group = by_document[w.text->document];
      const int64_t most = w.span.end_target - 1 - w.span.begin + plan.front;
      group.items += std::max<int64_t>(0, std::min(end, most + 1) - from);
      group.sum += w.details[i];
    }
    const auto groups = std::views::values(by_document);
    const GroupedMean loss = mean_over_groups(std::vector<GroupSum>(groups.begin(), groups.end()));
    if (loss.items > 0) positions.push_back({.from = from, .to = end - 1, .loss = loss});
  }
  return positions;
}

std::span<const double> losses_of_targets(const Plan& plan, const Window& w) {
  return std::span(w.details).subspan(plan.ranges());
}

KeyLoss key_loss(const Plan& plan, const KeyTokens& keys) {
  std::map<int64_t, GroupSum> by_document;
  for (const Window& w : plan.windows) {
    GroupSum& group = by_document[w.text->document];
    const std::span<const double> losses = losses_of_targets(plan, w);
    for (size_t i = 0; i < losses.size(); ++i)
      if (keys.holds(w.text->document, w.span.first_target - plan.lead + static_cast<int64_t>(i))) {
        group.sum += losses[i];
        ++group.items;
      }
  }
  const auto groups = std::views::values(by_document);
  KeyLoss key{.loss = mean_over_groups(std::vector<GroupSum>(groups.begin(), groups.end()))};
  key.share = static_cast<double>(key.loss.items) / static_cast<double>(plan.result.scored_tokens);
  return key;
}

// What is made of the losses of single targets.
void summarise_details(Plan& plan, const PerplexityOptions& o) {
  PerplexityResult& r = plan.result;
  r.positions = losses_by_position(plan);
  if (o.key_tokens) r.key = key_loss(plan, *o.key_tokens);
  if (o.keep_losses == KeepLosses::kNo) return;
  for (const Window& w : plan.windows) {
    const std::span<const double> losses = losses_of_targets(plan, w);
    r.losses.push_back({.document = w.text->document,
                        .first_target = w.span.first_target - plan.lead,
                        .nll = {losses.begin(), losses.end()}});
  }
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

// Batch b was rank b % K's: the details of its windows are written on all others.
void share_details(dist::Communicator& ranks, const Plan& plan, std::span<const std::vector<Window*>> batches) {
  std::vector<double> values;
  std::vector<size_t> owner;
  for (size_t b = 0; b < batches.size(); ++b)
    for (Window* w : batches[b]) {
      w->details.resize(plan.details(*w));
      values.insert(values.end(), w->details.begin(), w->details.end());
      owner.resize(values.size(), b);
    }
  if (values.empty()) return;
  dist::share(ranks, std::span(values), [&](size_t i) { return owner[i]; });
  auto value = values.begin();
  for (const std::vector<Window*>& batch : batches)
    for (Window* w : batch)
      for (double& detail : w->details) detail = *value++;
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
      if (mine < end) runner.run(batches[mine], plan);
    };
    if (together) {  // whose parts send messages
      if (dist::any(o.ranks, stop_requested())) throw dist::SharedError(ErrorKind::kInterrupted, stopped());
      part();
    } else {
      do_round(o.ranks, stopped, part);
    }
    if (!together) share_batches<Window>(o.ranks, std::span(batches).subspan(first, end - first), &Window::sums);
    if (!together) share_details(o.ranks, plan, std::span(batches).subspan(first, end - first));
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
  for (const int64_t W : o.protocol.lengths) plans.lengths.push_back(plan_length(plans.texts, o, W, plans.bos));
  return plans;
}

}  // namespace

std::vector<int64_t> context_bounds(int64_t most) {
  std::vector<int64_t> bounds;
  for (int64_t octave = 1; octave <= most; octave *= 2) {
    bounds.push_back(octave);
    if (octave > 1 && octave + octave / 2 <= most) bounds.push_back(octave + octave / 2);
  }
  bounds.push_back(most + 1);
  return bounds;
}

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
      summarise_details(plan, o);
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

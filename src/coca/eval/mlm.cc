// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/mlm.h"

#include <algorithm>
#include <cmath>

#include "coca/base/clock.h"
#include "coca/base/count.h"
#include "coca/base/rng.h"
#include "coca/base/spread.h"
#include "coca/data/masking.h"
#include "coca/eval/protocol.h"
#include "coca/eval/share.h"
#include "coca/model/decoder.h"
#include "coca/model/windows.h"
#include "coca/ops/cross_entropy.h"

namespace coca::eval {

namespace {

// `most` of them at most, spread evenly over all.
std::vector<std::span<const int32_t>> windows_of(std::span<const std::vector<int32_t>> documents, int64_t length,
                                                 int64_t most) {
  std::vector<std::span<const int32_t>> windows;
  const auto n = static_cast<size_t>(length);
  for (const std::vector<int32_t>& document : documents)
    for (size_t at = 0; n <= document.size() && at <= document.size() - n; at += n)
      windows.push_back(std::span(document).subspan(at, n));
  COCA_CHECK(!windows.empty(),
             "lengths holds {}: no document is long enough for such a window; give shorter lengths, more --max-tokens "
             "or longer texts",
             length);
  const auto all = static_cast<int64_t>(windows.size());
  if (most == 0 || most >= all) return windows;
  for (int64_t i = 0; i < most; ++i)
    windows[static_cast<size_t>(i)] = windows[static_cast<size_t>(spread_index(i, most, all))];
  windows.resize(static_cast<size_t>(most));
  return windows;
}

// Of the masked tokens of some windows.
struct Sums {
  double nll = 0;
  int64_t tokens = 0, windows = 0;
};

MlmResult result_of(std::span<const Sums> batches, int64_t length, int64_t planned_windows) {
  MlmResult r{.length = length, .planned_windows = planned_windows};
  for (const Sums& sums : batches) {
    r.nll += sums.nll;
    r.masked_tokens += sums.tokens;
    r.windows += sums.windows;
  }
  r.nll /= static_cast<double>(r.masked_tokens);
  r.perplexity = std::exp(r.nll);
  return r;
}

class BatchRunner {
 public:
  BatchRunner(Context& cx, const model::ModelSpec& spec, const model::Weights& weights, const data::MaskedTokens& masks,
              int64_t seed)
      : cx_(cx), weights_(weights), decoder_(spec, weights), masks_(masks), seed_(seed) {}

  // Windows of one length, the first of which is number `first` of all.
  Sums run(std::span<const std::span<const int32_t>> windows, size_t first) {
    const size_t count = windows.size(), n = windows[0].size();
    std::vector<int32_t> ids(count * n), targets(ids.size());
    for (size_t i = 0; i < count; ++i) {
      const std::span<int32_t> row = std::span(ids).subspan(i * n, n);
      std::ranges::copy(windows[i], row.begin());
      Rng rng(static_cast<uint64_t>(seed_), mix64(first + i) ^ 0xe3a1);
      data::mask_window(masks_, rng, row, std::span(targets).subspan(i * n, n));
    }
    const Dims shape{static_cast<int64_t>(count), static_cast<int64_t>(n)}, flat{shape.product()};
    Tensor nll(flat);
    ops::lm_loss_forward(cx_, {.x = decoder_.forward(cx_, {ids.data(), DType::kI32, shape, kHost}),
                               .w = weights_.head,
                               .targets = {targets.data(), DType::kI32, flat, kHost},
                               .nll = nll});
    Sums sums{.windows = static_cast<int64_t>(count)};
    for (size_t i = 0; i < targets.size(); ++i) {
      if (targets[i] == ops::kIgnoreTarget) continue;
      sums.nll += static_cast<double>(nll.values<float>()[i]);
      ++sums.tokens;
    }
    return sums;
  }

 private:
  Context& cx_;
  const model::Weights& weights_;
  model::Decoder decoder_;
  data::MaskedTokens masks_;
  int64_t seed_;
};

}  // namespace

std::vector<MlmResult> masked_perplexity(Context& cx, const model::ModelSpec& spec, const model::Weights& weights,
                                         std::span<const std::vector<int32_t>> documents, int32_t vocabulary,
                                         const MlmOptions& o) {
  std::vector<MlmResult> results;
  masked_perplexity(cx, spec, weights, documents, vocabulary, o, results);
  return results;
}

void masked_perplexity(Context& cx, const model::ModelSpec& model_spec, const model::Weights& weights,
                       std::span<const std::vector<int32_t>> documents, int32_t vocabulary, const MlmOptions& o,
                       std::vector<MlmResult>& results) {
  const data::MaskedTokens masks{.mask_id = model::require_masked(model_spec, "eval mlm"), .vocabulary = vocabulary};
  COCA_CHECK(!o.lengths.empty(), "lengths: none given");
  COCA_CHECK(o.max_windows >= 0, "max_windows is {}; expected at least 0", o.max_windows);
  COCA_CHECK(o.batch_tokens >= 1, "batch_tokens is {}; expected at least 1", o.batch_tokens);
  for (const int64_t length : o.lengths) COCA_CHECK(length >= 2, "lengths holds {}; expected at least 2", length);
  const model::ModelSpec spec = with_scaling(model_spec, o.scaling);
  std::vector<std::vector<std::span<const int32_t>>> plans;
  int64_t total = 0, done = 0;
  for (const int64_t length : o.lengths) {
    plans.push_back(windows_of(documents, length, o.max_windows));
    total += length * static_cast<int64_t>(plans.back().size());
  }
  BatchRunner runner(cx, spec, weights, masks, o.seed);
  const auto K = static_cast<size_t>(o.ranks.size());
  for (size_t l = 0; l < plans.size(); ++l) {
    const Stopwatch watch;
    const auto& windows = plans[l];
    const int64_t length = o.lengths[l];
    const auto at_once = static_cast<size_t>(std::max<int64_t>(1, o.batch_tokens / length));
    std::vector<Sums> batches((windows.size() + at_once - 1) / at_once);
    size_t finished = 0;  // batches, on all ranks
    const auto close = [&] {
      results.push_back(result_of(std::span(batches).first(finished), length, static_cast<int64_t>(windows.size())));
      results.back().seconds = watch.seconds();
    };
    const auto stopped = [&] {
      return fmt::format("eval mlm: stopped at length {}, {} of {} done", length, grouped(done),
                         counted(total, "token"));
    };
    try {
      while (finished < batches.size()) {
        const size_t mine = finished + static_cast<size_t>(o.ranks.rank()),
                     end = std::min(finished + K, batches.size());
        do_round(o.ranks, stopped, [&] {
          const size_t first = mine * at_once;
          if (mine < end)
            batches[mine] =
                runner.run(std::span(windows).subspan(first, std::min(at_once, windows.size() - first)), first);
        });
        dist::share(o.ranks, std::span(batches).subspan(finished, end - finished), [](size_t b) { return b; });
        done += static_cast<int64_t>(std::min(end * at_once, windows.size()) - finished * at_once) * length;
        finished = end;
        if (o.progress) o.progress(length, done, total);
      }
    } catch (...) {
      if (finished > 0) close();
      throw;
    }
    close();
  }
}

}  // namespace coca::eval

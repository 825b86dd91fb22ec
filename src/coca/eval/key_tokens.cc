// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/key_tokens.h"

#include <algorithm>
#include <cmath>

#include "coca/base/count.h"

namespace coca::eval {

namespace {

// Windows that score every token once.
PerplexityOptions run_of(const PerplexityOptions& o, int64_t context, int64_t stride) {
  PerplexityOptions run = o;
  run.protocol.lengths = {context};
  run.protocol.stride = std::max<int64_t>(1, stride);
  run.protocol.placement = Placement::kBegins;
  run.protocol.scored = Scored::kNew;
  run.protocol.reach = Reach::kInside;
  run.protocol.tail = Tail::kShort;
  run.id_text.clear();
  run.key_tokens = nullptr;
  run.by_position = ByPosition::kNo;
  run.keep_losses = KeepLosses::kYes;
  return run;
}

// The losses of a text's tokens; NaN where a token has none.
using TextLosses = std::map<int64_t, std::vector<double>>;
TextLosses by_token(const std::vector<WindowLosses>& windows) {
  TextLosses losses;
  for (const WindowLosses& w : windows) {
    std::vector<double>& of = losses[w.document];
    const auto first = static_cast<size_t>(w.first_target);
    if (of.size() < first + w.nll.size()) of.resize(first + w.nll.size(), std::nan(""));
    std::copy(w.nll.begin(), w.nll.end(), of.begin() + static_cast<std::ptrdiff_t>(first));
  }
  return losses;
}

}  // namespace

void check_rule(const KeyTokenRule& rule) {
  COCA_CHECK(rule.short_context >= 2, "key_short is {}; expected at least 2 tokens", rule.short_context);
  COCA_CHECK(rule.long_context > rule.short_context,
             "key_long is {} and key_short {}; the long context must be longer than the short one", rule.long_context,
             rule.short_context);
  COCA_CHECK(std::isfinite(rule.gain), "key_gain is {}; expected a finite number", rule.gain);
  COCA_CHECK(std::isfinite(rule.least), "key_least is {}; expected a finite number", rule.least);
}

std::vector<PerplexityOptions> key_token_runs(const PerplexityOptions& o, const KeyTokenRule& rule) {
  check_rule(rule);
  return {run_of(o, rule.long_context, rule.long_context / 4), run_of(o, rule.short_context, rule.short_context / 2)};
}

KeyTokens find_key_tokens(Context& cx, const model::ModelSpec& spec, const model::Weights& weights,
                          std::span<const std::vector<int32_t>> documents, const PerplexityOptions& o,
                          const KeyTokenRule& rule) {
  std::vector<PerplexityOptions> runs = key_token_runs(o, rule);
  int64_t total = 0, before = 0;
  for (const PerplexityOptions& run : runs) total += plan_perplexity(spec, documents, run).at(0).run_tokens;
  std::vector<TextLosses> losses;
  for (PerplexityOptions& run : runs) {
    if (o.progress)
      run.progress = [&](const PerplexityProgress& p) {
        PerplexityProgress both = p;
        both.done_tokens += before;
        both.total_tokens = total;
        o.progress(both);
      };
    const PerplexityResult r = perplexity(cx, spec, weights, documents, run).at(0);
    losses.push_back(by_token(r.losses));
    before += r.run_tokens;
  }
  KeyTokens keys;
  for (const auto& [document, far] : losses[0]) {
    const std::vector<double>& near = losses[1][document];
    std::vector<bool>& of = keys.of_document[document];
    of.resize(far.size());
    for (size_t i = 0; i < std::min(far.size(), near.size()); ++i) {
      if (std::isnan(far[i]) || std::isnan(near[i])) continue;
      ++keys.compared;
      of[i] = near[i] - far[i] > rule.gain && -far[i] > rule.least;
      keys.found += of[i];
    }
  }
  return keys;
}

}  // namespace coca::eval

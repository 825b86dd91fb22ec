// coca/eval/key_tokens.h - the key tokens of LongPPL (arXiv 2410.23771): those that a model predicts well with a long
// context and much worse with a short one.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "coca/eval/perplexity.h"

namespace coca::eval {

// Token x is a key token if log p(x | long) - log p(x | short) > gain and log p(x | long) > least (natural logarithms).
// Windows of long_context tokens overlap by three quarters, those of short_context by half, so that x has at least as
// much context wherever its text has it. A bos token counts.
struct KeyTokenRule {
  int64_t long_context = 0, short_context = 0;
  double gain = 2, least = -2;
};
// Error unless 2 <= short_context < long_context and gain and least are finite.
void check_rule(const KeyTokenRule&);

// By the model given, in the texts that o.protocol makes of the documents: its cuts, its join and its place of bos. Of
// the options, key_tokens, by_position and keep_losses are not used. Progress is over both contexts.
KeyTokens find_key_tokens(Context&, const model::ModelSpec&, const model::Weights&,
                          std::span<const std::vector<int32_t>> documents, const PerplexityOptions& o,
                          const KeyTokenRule&);
// The options of its two runs: with the long context, with the short one.
std::vector<PerplexityOptions> key_token_runs(const PerplexityOptions& o, const KeyTokenRule&);

}  // namespace coca::eval

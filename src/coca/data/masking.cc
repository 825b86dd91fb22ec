// SPDX-License-Identifier: Apache-2.0
#include "coca/data/masking.h"

#include <algorithm>
#include <cmath>

#include "coca/data/packing.h"

namespace coca::data {

MaskedTokens masked_tokens(const text::Tokenizer& tokenizer) {
  for (const char* name : {"[MASK]", "<mask>"})
    if (const std::optional<int32_t> id = tokenizer.token_id(name))
      return {.mask_id = *id, .vocabulary = tokenizer.vocab_size()};
  return {.mask_id = tokenizer.vocab_size(), .vocabulary = tokenizer.vocab_size()};
}

int64_t chosen_tokens(int64_t n) {
  return std::clamp<int64_t>(std::llround(0.15 * static_cast<double>(n)), 1, std::max<int64_t>(1, n));
}

// A token is chosen with the probability that is left for it (Knuth, algorithm S).
void mask_window(const MaskedTokens& tokens, Rng& rng, std::span<int32_t> ids, std::span<int32_t> targets) {
  const auto n = static_cast<int64_t>(ids.size());
  std::ranges::fill(targets, kNoTarget);
  for (int64_t i = 0, left = chosen_tokens(n); i < n; ++i) {
    if (static_cast<int64_t>(rng.below(static_cast<uint64_t>(n - i))) >= left) continue;
    --left;
    int32_t& id = ids[static_cast<size_t>(i)];
    targets[static_cast<size_t>(i)] = id;
    const uint64_t tenth = rng.below(10);
    if (tenth < 8)
      id = tokens.mask_id;
    else if (tenth == 8)
      id = static_cast<int32_t>(rng.below(static_cast<uint64_t>(tokens.vocabulary)));
  }
}

}  // namespace coca::data

// coca/data/masking.h - masked language modelling (Devlin et al. 2019, section 3.1): 15 % of a window's tokens are
// chosen. Of these, 80 % are replaced by the mask token, 10 % by a random token, and 10 % are kept. The model predicts
// all of them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "coca/base/rng.h"
#include "coca/text/tokenizer.h"

namespace coca::data {

struct MaskedTokens {
  int32_t mask_id = 0;
  int32_t vocabulary = 1;  // random tokens are drawn below this
};

// The mask token of a tokenizer's models: its own ("[MASK]" or "<mask>"), else the first id beyond its vocabulary.
MaskedTokens masked_tokens(const text::Tokenizer&);

// How many of a window's n tokens are chosen: 15 %, rounded, and at least one.
int64_t chosen_tokens(int64_t n);
// Chooses that many ids, all sets being equally likely, and replaces them. Writes targets, of the same size: the
// original id, or kNoTarget. The result depends on the generator alone.
void mask_window(const MaskedTokens&, Rng&, std::span<int32_t> ids, std::span<int32_t> targets);

}  // namespace coca::data

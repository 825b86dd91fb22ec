// coca/data/masking.h - masked language modelling (Devlin et al. 2019, section 3.1): of a window's tokens 15 % are chosen; of
// these 80 % are replaced by the mask token, 10 % by any token, and 10 % stay. The model is asked for all that were chosen.
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
// Chooses so many of ids, each such set as likely as any other, and replaces them; targets, of the same size, are written: what
// stood there, or kNoTarget. Nothing but the generator decides.
void mask_window(const MaskedTokens&, Rng&, std::span<int32_t> ids, std::span<int32_t> targets);

}  // namespace coca::data

// coca/analyse/sample.h - which token pairs and which rows of attention are looked at: all of them, or a seeded sample.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "coca/base/rng.h"

namespace coca::analyse {

struct TokenPair {
  int64_t m = 0, n = 0;  // query and key, n <= m
};

// All N (N + 1) / 2 causal pairs when `count` is 0 or at least as many; else `count` of them, drawn evenly with
// repetition.
std::vector<TokenPair> sample_pairs(int64_t N, int64_t count, Rng&);
// Positions 1 .. N-1 (row 0 sees one key), ascending: all when `count` is 0 or at least as many, else one from each of
// `count` equal parts.
std::vector<int64_t> sample_rows(int64_t N, int64_t count, Rng&);

}  // namespace coca::analyse

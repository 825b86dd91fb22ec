// coca/ops/top_keys.h - a few keys more for an attention that is done: each query and head picks the `count` keys of the
// middle that score highest, and these join its softmax (LM-Infinite's option, Han et al. 2024, section 3). No backward.
// Math: docs/math/top_keys.md. Keys may come in blocks, in their order, and values after them in blocks again: what is kept
// between is the lists, never N x S. The same bits for any number of threads and any blocks that begin at multiples of 64.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/tensor/context.h"

namespace coca::ops {

struct TopKeysOptions {
  int64_t count = 0;        // keys per query and head, at least 1
  float scale = 0.0f;       // positive; 0 selects 1/sqrt(D)
  int64_t first = 0;        // keys in front of this one are not of the middle
  int64_t hidden = 1;       // nor are the nearest so many, the query's own included: n <= m - hidden is
  int64_t query_start = 0;  // position of query 0 among the keys
  int64_t most_distance = 0;  // ALiBi: farther keys count as this far away; 0: as they are
};

// Finds among the keys [key_start, key_start + n). With key_start 0 the lists begin, later blocks continue them. Lists are
// sorted, the largest score first, of equal ones the earlier key; places without a key hold -inf and -1.
struct TopKeysFind {
  TensorRef q;             // [B, N, H, D] as it stands towards the middle; f32 or bf16, innermost stride 1
  TensorRef k;             // [B, n, G, D] likewise; f32 or bf16, not necessarily q's type
  int64_t key_start = 0;   // a multiple of 64
  TensorRef slopes;        // [H] f32 ALiBi slopes, as in attention.h; empty: none
  MutTensorRef scores;     // [B, N, H, count] f32 written
  MutTensorRef keys;       // [B, N, H, count] i32 written
};
void top_keys_find(Context&, const TopKeysOptions&, const TopKeysFind&);

// Adds those of the keys found that lie in [key_start, key_start + n) to the softmax behind o and lse. Every key once.
struct TopKeysAdd {
  TensorRef scores, keys;  // as found
  TensorRef v;             // [B, n, G, D] f32 or bf16, innermost stride 1
  int64_t key_start = 0;
  MutTensorRef o;          // [B, N, H, D] f32 or bf16, updated
  MutTensorRef lse;        // [B, H, N] f32, updated
};
void top_keys_add(Context&, const TopKeysAdd&);

}  // namespace coca::ops

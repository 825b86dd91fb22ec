// coca/kernels/args/top_keys.h - what top_keys takes; ops/top_keys.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/kernels/args/implementation.h"

namespace coca::ops {

inline constexpr int64_t kKeyTile = 64;  // blocks of keys begin at multiples of it

struct TopKeysOptions {
  int64_t count = 0;          // keys per query and head, at least 1
  float scale = 0.0f;         // positive; 0 selects 1/sqrt(D)
  int64_t first = 0;          // the middle begins with this key
  int64_t hidden = 1;         // and ends before this many nearest keys, the query's own included: n <= m - hidden
  int64_t query_start = 0;    // position of query 0 among the keys
  int64_t most_distance = 0;  // for ALiBi, the largest distance of a key that counts; 0: no limit
};

// Searches the keys [key_start, key_start + n). key_start 0 begins the lists, and later blocks continue them. Lists are
// sorted, largest score first, and the earlier key first among equal scores; unused entries hold -inf and -1.
struct TopKeysFind {
  TensorRef q;            // [B, N, H, D] at its position for the middle; f32 or bf16, innermost stride 1
  TensorRef k;            // [B, n, G, D] at their positions; f32 or bf16, not necessarily q's type
  int64_t key_start = 0;  // a multiple of 64
  TensorRef slopes;       // [H] f32 ALiBi slopes, as in attention.h; empty: none
  MutTensorRef scores;    // [B, N, H, count] f32 written
  MutTensorRef keys;      // [B, N, H, count] i32 written
};

// Adds the keys found in [key_start, key_start + n) to the softmax of o and lse. Give every key once.
struct TopKeysAdd {
  TensorRef scores, keys;  // as found
  TensorRef v;             // [B, n, G, D] f32 or bf16, innermost stride 1
  int64_t key_start = 0;
  MutTensorRef o;    // [B, N, H, D] f32 or bf16, updated
  MutTensorRef lse;  // [B, H, N] f32, updated
};

struct TopKeysFunctions {
  void (*find)(Context&, const TopKeysOptions&, const TopKeysFind&);
  void (*add)(Context&, const TopKeysAdd&);
};
using TopKeysImpl = Implementation<TopKeysFunctions>;

}  // namespace coca::ops

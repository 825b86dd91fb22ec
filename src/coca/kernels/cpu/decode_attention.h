// coca/kernels/cpu/decode_attention.h - attention of some query rows over a range of cached tokens (Highway).
// Math: docs/math/decode_attention.md. Keys are not rotated; a score is linear in cos and sin of the key's position:
//   score = sum_{j < half} (x_j u_j + y_j w_j) + sum_{i >= plain} k_i p_i
//   Keys::kFolded: x = k_j c, y = k_j s                            (CoCA's folded t)
//   Keys::kPairs:  (x, y) = the pair (k_j, k_(j + half)) turned by c, s  (indices modulo the key's width W)
// decode_attention_op.cc makes u, w, p from the queries and merges the ranges.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "coca/tensor/kv_pages.h"

namespace coca::cpu {

inline constexpr int64_t kDecodeRows = 8;  // rows that share one pass over a page

enum class Keys : uint8_t { kFolded, kPairs };

struct DecodeParams {
  KvView cache;
  Keys keys = Keys::kPairs;
  int64_t half = 0;   // rotated pairs
  int64_t plain = 0;  // the first key row that also counts without rotation; W: none
  // cos and sin [half, 64] of a tile's tokens in the order of kv_lane, relative to the tile's middle where there is
  // start_cos; the next tile's are tile_step further on (0: all tiles share one table).
  const float* cos = nullptr;
  const float* sin = nullptr;
  int64_t tile_step = 0;
  bool mirrored = false;      // lanes 32 to 63 have the cosines of lanes 0 to 31 and the opposite of their sines
  int64_t window = 0;         // visible tokens of a row, the last ones before seen[r]; 0: all
  int64_t first = 0;          // tokens before it are not visible
  int64_t most_distance = 0;  // ALiBi: the largest distance of a token that counts; 0: no limit
  // cos and sin [tiles, half] of the tiles' middles; null: these count as angle zero.
  const float* start_cos = nullptr;
  const float* start_sin = nullptr;
  int64_t query_floats() const { return 2 * half + cache.layout.W - plain; }
};

// Rows r = 0 .. rows-1; row r attends to the tokens before seen[r], with a window to the last `window` of them. With a
// dilation n, it attends to every n-th token back from the last, and the window counts these.
struct DecodeTask {
  int64_t g = 0;
  int64_t rows = 0;
  int64_t dilation = 1;
  const float* queries = nullptr;   // [rows, query_floats]: u [half], w [half], p [W - plain], scale included
  const int64_t* seen = nullptr;    // [rows], not decreasing
  const float* slopes = nullptr;    // [rows] ALiBi slopes or null
  const int64_t* places = nullptr;  // [rows] position of each row for ALiBi; null: seen[r] - 1
  // [rows] forget gates: cumulative decays of the tokens as the row's head has them, its own at seen[r] - 1; or null
  const float* const* decays = nullptr;
  int64_t begin = 0, end = 0;  // tokens; begin is a multiple of a page
  float* o = nullptr;          // [rows, decode_padded(D)] written: sum of exp(score - max) v
  float* max = nullptr;        // [rows] written: largest score, -inf without visible tokens
  float* sum = nullptr;        // [rows] written: sum of exp(score - max)
};

inline int64_t decode_padded(int64_t D) { return (D + 15) / 16 * 16; }  // whole vectors on every target
size_t decode_work_floats(const DecodeParams&) noexcept;
void decode_range(const DecodeParams&, const DecodeTask&, float* work) noexcept;

}  // namespace coca::cpu

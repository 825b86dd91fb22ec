// coca/kernels/args/decode_attention.h - what decode_attention takes; ops/decode_attention.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "coca/kernels/args/implementation.h"
#include "coca/kernels/args/attention.h"
#include "coca/kernels/args/collinear.h"
#include "coca/kernels/args/rotation.h"
#include "coca/tensor/kv_pages.h"

namespace coca::ops {

// Where keys stand: token s at position start + floor(s / group). origin: of the rotation's growth, where it has one; that of
// the queries' rows.
struct KeySpacing {
  double start = 0.0, origin = 0.0;
  int64_t group = 1;  // divides 64
  friend bool operator==(const KeySpacing&, const KeySpacing&) = default;
};

// Angles of evenly spaced keys as decode attention wants them. Of the middle of every 64 tokens cos and sin, and one table of
// the 64 offsets from it, in the order of kv_lane, with the rotation's amplitude: 1/64 of a full table. Formed in double.
class KeyAngles {
 public:
  // Makes room for S tokens. Another rotation or spacing than before: all afresh; else only what is missing is added.
  void build(const Rotation&, int64_t S, const KeySpacing& = {});
  int64_t half() const { return rotation_.pairs(); }
  int64_t tokens() const { return tiles_ * kKvTile; }
  // Lanes 32 to 63 are as far behind the middle as lanes 0 to 31 are ahead of it, with the same cosines and the opposite sines.
  bool mirrored() const { return rotation_.growth.empty(); }
  const float* start_cos() const { return start_cos_.data(); }    // [tiles, half]
  const float* start_sin() const { return start_sin_.data(); }
  const float* offset_cos() const { return offset_cos_.data(); }  // [half, 64]
  const float* offset_sin() const { return offset_sin_.data(); }

 private:
  void build_offsets();
  void build_starts(int64_t begin, int64_t end);

  Rotation rotation_;
  KeySpacing spacing_;
  std::vector<float> start_cos_, start_sin_, offset_cos_, offset_sin_;
  int64_t tiles_ = 0;
};

// kDot: q . k as they are. kRope: both rotated. kCollinear: the cache holds CoCA's folded t (W = D/2).
enum class Score : uint8_t { kDot, kRope, kCollinear };

struct DecodeAttentionOptions {
  Score score = Score::kDot;
  CollinearOptions collinear;  // with kCollinear
  float scale = 0.0f;          // 0 selects 1/sqrt(D)
  int64_t window = 0;          // tokens a query sees, itself included; older pages are not read. 0: all
  // [H] as in dilated_attention.h, more than 1 with a window only; empty: all 1. Masked: the pages of the whole span are read.
  std::span<const int64_t> dilation = {};
};

// More tokens under the same softmax, at other positions than those in the window (ops/attention.h, FarKeys): the first
// `tokens` of the cache, as far as the window no longer holds them, or with FarRange::kAll all, of which the window then
// holds none.
struct DecodeFar {
  int64_t tokens = 0;                 // 0: none
  FarRange range = FarRange::kBehindWindow;
  RopeRows rows;                      // [1 or B, N, R/2] of the queries towards them
  const KeyAngles* angles = nullptr;  // of at least so many tokens
  // ALiBi: farther tokens count as most_distance away, and queries behind most_position as standing there (0: as they are).
  int64_t most_distance = 0, most_position = 0;
  int64_t forgotten = 0;  // tokens that the cache dropped between these and the window: queries stand so much farther on
};

// The queries are the last N tokens of the cache: query n sees the tokens up to S - N + n. Query head h reads kv head
// h / (H / G). Query rows, and angles or key_rows, are needed unless the score is kDot.
struct DecodeAttention {
  TensorRef q;                        // [B, N, H, D] un-rotated, f32 or bf16, innermost stride 1
  RopeRows rows;                      // [1 or B, N, R/2] of the queries
  RopeRows turn;                      // the same shape: the transformed queries turn on by these angles; empty: they do not
  const KeyAngles* angles = nullptr;  // of at least S tokens: evenly spaced positions
  RopeRows key_rows;                  // or [1 or B, S, R/2]: any positions
  KvView cache;                       // S = length tokens, keys W = D (kDot, kRope) or D/2 (kCollinear)
  TensorRef slopes;                   // [H] f32 ALiBi slopes, as in attention.h; empty: none
  DecodeFar far;                      // with a window only
  MutTensorRef o;                     // [B, N, H, D] written, same type as q
  MutTensorRef lse;                   // [B, H, N] f32 written, as in attention.h; empty: not wanted
};

struct DecodeAttentionFunctions {
  void (*forward)(Context&, const DecodeAttentionOptions&, const DecodeAttention&);
};
using DecodeAttentionImpl = Implementation<DecodeAttentionFunctions>;

}  // namespace coca::ops

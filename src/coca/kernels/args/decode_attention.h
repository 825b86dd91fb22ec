// coca/kernels/args/decode_attention.h - what decode_attention takes; ops/decode_attention.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "coca/kernels/args/attention.h"
#include "coca/kernels/args/collinear.h"
#include "coca/kernels/args/implementation.h"
#include "coca/kernels/args/rotation.h"
#include "coca/tensor/kv_pages.h"
#include "coca/tensor/tensor.h"

namespace coca::ops {

// The positions of keys: token s is at position start + floor(s / group). origin: that of the rotation's growth, if it
// has one; the same as for the queries' rows.
struct KeySpacing {
  double start = 0.0, origin = 0.0;
  int64_t group = 1;  // divides 64
  friend bool operator==(const KeySpacing&, const KeySpacing&) = default;
};

// Angles of evenly spaced keys in the form that decode attention needs: cos and sin of the middle of every 64 tokens,
// and one table of the 64 offsets from it, in the order of kv_lane, with the rotation's amplitude. This is 1/64 of a
// full table. Computed in double.
class KeyAngles {
 public:
  // Extends the angles to S tokens. If the rotation or spacing has changed, all are computed again; else only missing
  // ones.
  void build(const Rotation&, int64_t S, const KeySpacing& = {});
  int64_t half() const { return rotation_.pairs(); }
  int64_t tokens() const { return tiles_ * kKvTile; }
  // Lanes 32 to 63 are as far after the middle as lanes 0 to 31 are before it: the same cosines and the opposite sines.
  bool mirrored() const { return rotation_.growth.empty(); }
  const float* start_cos() const { return start_cos_.data(); }  // [tiles, half]
  const float* start_sin() const { return start_sin_.data(); }
  const float* offset_cos() const { return offset_cos_.data(); }  // [half, 64]
  const float* offset_sin() const { return offset_sin_.data(); }

  // Where an implementation on a device keeps its copy of these tables; version() grows with every change.
  struct OnDevice {
    uint64_t version = 0;
    const DeviceMemory* memory = nullptr;
    Tensor start_cos, start_sin, offset_cos, offset_sin;
  };
  OnDevice& on_device() const { return on_device_; }
  uint64_t version() const { return version_; }

 private:
  void build_offsets();
  void build_starts(int64_t begin, int64_t end);

  Rotation rotation_;
  KeySpacing spacing_;
  std::vector<float> start_cos_, start_sin_, offset_cos_, offset_sin_;
  int64_t tiles_ = 0;
  uint64_t version_ = 0;
  mutable OnDevice on_device_;
};

// What the cache holds and how it becomes a key. kDot: keys as they are. kRope: pairs to rotate, W = E. kCollinear:
// CoCA's folded t, lengths of keys along a direction to rotate, W = P + C (kernels/args/collinear.h).
enum class Score : uint8_t { kDot, kRope, kCollinear };

struct DecodeAttentionOptions {
  Score score = Score::kDot;
  CollinearOptions collinear;  // with kCollinear
  float scale = 0.0f;          // 0 selects 1/sqrt(E)
  int64_t window = 0;          // tokens visible to a query, itself included; older pages are not read. 0: all
  // [H] as in dilated_attention.h; more than 1 needs a window; empty: all 1. The pages of the whole span are read and
  // masked.
  std::span<const int64_t> dilation = {};
};

// More tokens under the same softmax, at other positions than those in the window (kernels/args/attention.h, FarKeys):
// of the first `tokens` of the cache, those that have left the window, or with FarRange::kAll all; then none of them is
// in the window.
struct DecodeFar {
  int64_t tokens = 0;  // 0: none
  FarRange range = FarRange::kBehindWindow;
  TensorRef q;                        // as DecodeSequence::q, but as it stands towards these tokens
  const KeyAngles* angles = nullptr;  // of at least `tokens` tokens
  // For ALiBi, the largest distance of a token and the largest position of a query that count; 0: no limit.
  int64_t most_distance = 0, most_position = 0;
  int64_t forgotten = 0;  // tokens dropped between these and the window; queries are this much further on
};

// One sequence. Its queries are the last N tokens of its cache: query n attends to tokens up to S - N + n. Query head h
// uses kv head h / (H / G). Angles or key_rows are needed unless the score is kDot.
struct DecodeSequence {
  TensorRef q;                        // [1, N, H, E] q_eff or rotated q, f32 or bf16, innermost stride 1
  const KeyAngles* angles = nullptr;  // of at least S tokens: evenly spaced positions
  RopeRows key_rows;                  // or [1, S, R/2]: any positions
  KvView cache;                       // S = length tokens, keys W, values D
  // Cumulative log forget gates as in attention.h: [H, S] f32, innermost stride 1, of the cache's tokens; empty: none.
  // Not with far tokens.
  TensorRef decay;
  DecodeFar far;     // with a window only
  MutTensorRef o;    // [1, N, H, D] written, same type as q
  MutTensorRef lse;  // [1, H, N] f32 written, as in attention.h; empty: not wanted
};

// Sequences of any lengths and numbers of queries, at least one each. They have H, E, R, the type of q and the layout
// of the cache in common. What is computed for one does not depend on the others.
struct DecodeAttention {
  std::span<const DecodeSequence> sequences;
  TensorRef slopes;  // [H] f32 ALiBi slopes, as in attention.h; empty: none
};

struct DecodeAttentionFunctions {
  void (*forward)(Context&, const DecodeAttentionOptions&, const DecodeAttention&);
};
using DecodeAttentionImpl = Implementation<DecodeAttentionFunctions>;

}  // namespace coca::ops

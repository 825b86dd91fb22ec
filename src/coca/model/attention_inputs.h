// coca/model/attention_inputs.h - what the attention of a pass goes by, beside its tensors: where tokens stand, and
// which keys their queries attend to.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "coca/model/spec.h"
#include "coca/ops/rope.h"

namespace coca::model {

// Rows of cos and sin, and ALiBi's slopes; empty where a model has none.
struct Positions {
  ops::RopeRows rows;
  ops::RopeRows key_rows;  // of keys, where they are others than the queries' (xPos); else empty
  // Patterns (pattern.h): slack's queries turn on by these angles; empty: they do not.
  ops::RopeRows turn;
  ops::RopeRows flat;                    // of position 0, for layers without positions; only where a model has such
  ops::RopeRows far_rows, far_key_rows;  // of queries towards keys beyond the window; of the tokens here as such keys
  TensorRef slopes;                      // [H]
  TensorRef log_tokens;  // [N] or [B, N] f32: log of the tokens up to each, itself included; with log-scale only

  const ops::RopeRows& keys() const { return key_rows.cos.empty() ? rows : key_rows; }
  Positions narrow(int64_t first, int64_t count) const;  // of `count` tokens from the `first` of these
};

// Which keys queries attend to.
struct AttentionScope {
  int64_t window = 0;                 // keys a query sees, itself included; 0: all
  std::span<const int64_t> dilation;  // [H] of the window; empty: none
  TensorRef global_start;  // [N or more] i32, all the number of global tokens: where windows begin; without these empty
  TensorRef document_start;  // [B, N] i32, packed documents: no token sees one in front of this place; empty: none
  // The first `far_tokens` of a sequence are seen beyond the window too, at other positions. ALiBi's distances to them
  // are bounded (ops/attention.h, FarKeys).
  int64_t far_tokens = 0, far_most_distance = 0, far_most_position = 0;
  int64_t middle_keys = 0;  // that each query and head picks of the middle (LM-Infinite)
  bool flat = false;        // this layer has no positions
};

struct AttentionInputs {
  Positions positions;
  AttentionScope scope;

  AttentionInputs narrow(int64_t first, int64_t count) const { return {positions.narrow(first, count), scope}; }
  AttentionInputs in_layer(const ModelSpec&, size_t layer) const;  // with that layer's window and positions
};

}  // namespace coca::model

// coca/infer/sequence.h - one text as the decoder has it: its cache, and where its tokens stand. BatchDecoder
// (batch_decoder.h) makes sequences and appends to them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "coca/base/enum_names.h"
#include "coca/infer/kv_cache.h"
#include "coca/model/decoder.h"
#include "coca/ops/decode_attention.h"

namespace coca::infer {

// Which length dynamic NTK reckons with while a sequence grows. The keys are rotated afresh either way.
//   kStep:    the length so far, as the official code. Hidden states of earlier tokens were made under earlier bases.
//   kRequest: the planned final length, from the first token on: equal to running the whole sequence at once.
enum class DynamicBase : uint8_t { kStep, kRequest };

struct SequenceOptions {
  DynamicBase dynamic_base = DynamicBase::kStep;
  int64_t planned_length = 0;  // tokens in the end; needed with kRequest
};

class Sequence {
 public:
  Sequence(Sequence&&) = default;
  Sequence& operator=(Sequence&&) = delete;

  // A sequence of its own with the same tokens. Pages are shared until one of the two writes to them: only the last,
  // unfinished page is ever copied.
  Sequence fork() const;
  // Drops the tokens from `length` on. Throws where the cache has forgotten what the token then next would see.
  void truncate(int64_t length);

  const KvCache& cache() const { return cache_; }
  int64_t length() const { return cache_.length(); }

 private:
  friend class BatchDecoder;
  // Keys (or t) and values of the global tokens of a layer through their own projections, un-rotated: [1, global
  // tokens, G, K], K = key_width(), and [1, global tokens, G, D]. Only these tokens read them.
  struct Globals {
    Tensor keys, values;
  };
  // Where the tokens of a piece stand, and what they see beside the window.
  struct Place {
    model::AttentionInputs at;
    ops::DecodeFar far;
  };

  Sequence(const model::ModelSpec&, DType, const KvPool&, const SequenceOptions&);
  // The length that the rotation of N more tokens goes by, of a piece of a prompt that ends at `end`.
  int64_t scaling_length(int64_t N, int64_t end) const;
  // Makes room for N tokens and places them. Valid until the next call.
  Place place(int64_t N, int64_t scaling_length, const ops::Rotation&);
  void build_angles(int64_t N, const ops::Rotation&);
  ops::DecodeFar far_side(const model::AttentionInputs&, int64_t N) const;
  ops::DecodeFar global_side(const model::Positions&, int64_t N) const;

  const model::ModelSpec& spec_;
  DType dtype_;
  KvPool pool_;
  SequenceOptions options_;
  KvCache cache_;
  model::PositionSource positions_, global_positions_;
  ops::KeyAngles angles_, far_angles_;
  std::vector<Globals> globals_;  // by layer; without global tokens empty
  model::Positions globals_at_;
};

}  // namespace coca::infer

COCA_ENUM_NAMES(coca::infer::DynamicBase, "dynamic base", {coca::infer::DynamicBase::kStep, "step"},
                {coca::infer::DynamicBase::kRequest, "request"})

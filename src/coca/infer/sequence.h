// coca/infer/sequence.h - one text in the decoder: its cache and the positions of its tokens. BatchDecoder
// (batch_decoder.h) creates sequences and appends to them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "coca/base/enum_names.h"
#include "coca/infer/kv_cache.h"
#include "coca/model/decoder.h"
#include "coca/ops/decode_attention.h"

namespace coca::infer {

// The length that dynamic NTK uses while a sequence grows. Keys are rotated again in either case.
//   kStep:    the length so far, as in the official code. Earlier tokens keep hidden states from earlier bases.
//   kRequest: the planned final length from the first token on: equal to running the whole sequence at once.
enum class DynamicBase : uint8_t { kStep, kRequest };

struct SequenceOptions {
  DynamicBase dynamic_base = DynamicBase::kStep;
  int64_t planned_length = 0;  // final number of tokens; needed with kRequest
};

class Sequence {
 public:
  Sequence(Sequence&&) = default;
  Sequence& operator=(Sequence&&) = delete;

  // A separate sequence with the same tokens. Pages are shared until one of the two writes to them; only the last,
  // partly filled page is ever copied.
  Sequence fork() const;
  // Drops the tokens from `length` on. Throws if the next token would see tokens that the cache has dropped.
  void truncate(int64_t length);

  const KvCache& cache() const { return cache_; }
  int64_t length() const { return cache_.length(); }

 private:
  friend class BatchDecoder;
  // Keys (or t) and values of a layer's global tokens from their own projections, un-rotated: [1, global tokens, G, K]
  // with K = key_width(), and [1, global tokens, G, D]. Only global tokens use them.
  struct Globals {
    Tensor keys, values;
  };
  // What the modifiers of a layer's attention need of earlier tokens; empty where the model has none such.
  struct Earlier {
    Tensor kt, v;       // [1, kKept, G, K] [1, kKept, G, D]: of the last tokens, n at n % kKept, before Stage::kKeys
    Tensor decay;       // [1, H, capacity] f32: of all tokens
    Tensor last_decay;  // [1, H, 2] of ops::ForgetGateForward::end
    Tensor ends;        // [1, kKept, H, 2]: last_decay after the last calls
  };
  static constexpr int64_t kKept = 64;  // so many tokens truncate() can take back

  // The positions of a piece's tokens, and what they see outside the window.
  struct Place {
    model::AttentionInputs at;
    ops::DecodeFar far;
  };

  Sequence(const model::ModelSpec&, DType, const KvPool&, const SequenceOptions&);
  // The length to scale the rotation by for N more tokens of a prompt that ends at `end`.
  int64_t scaling_length(int64_t N, int64_t end) const;
  // Reserves room for N tokens and determines their positions. Valid until the next call.
  Place place(int64_t N, int64_t scaling_length, const ops::Rotation&);
  void build_angles(int64_t N, const ops::Rotation&);
  // For N more tokens: room for their decays, which become those of `acts`, and what stands in front of them.
  model::LayerCarry carry(Context&, size_t layer, int64_t N, model::LayerActs& acts);
  void restore_decay(int64_t length);
  TensorRef decays(size_t layer, int64_t N) const;  // [H, S] of all tokens with N more; empty without Stage::kDecay
  // What a layer's modifiers have made of these: kt_in [1, N, G, K], v_in [1, N, G, D].
  void keep(Context&, size_t layer, TensorRef kt_in, TensorRef v_in);
  ops::DecodeFar far_side(const model::AttentionInputs&, int64_t N) const;
  ops::DecodeFar global_side(const model::Positions&) const;

  const model::ModelSpec& spec_;
  DType dtype_;
  KvPool pool_;
  SequenceOptions options_;
  KvCache cache_;
  model::PositionSource positions_, global_positions_;
  ops::KeyAngles angles_, far_angles_, flat_angles_;  // flat: of layers without positions
  std::vector<Globals> globals_;                      // one per layer; empty without global tokens
  model::Positions globals_at_;
  std::vector<Earlier> earlier_;  // one per layer; empty without modifiers
  int64_t kept_from_ = 0;         // the first token of which kt and v are kept
  std::vector<int64_t> ends_;     // the tokens after each call of Earlier::ends, and where the next goes
  size_t next_end_ = 0;
};

}  // namespace coca::infer

COCA_ENUM_NAMES(coca::infer::DynamicBase, "dynamic base", {coca::infer::DynamicBase::kStep, "step"},
                {coca::infer::DynamicBase::kRequest, "request"})

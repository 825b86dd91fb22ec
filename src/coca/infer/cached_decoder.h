// coca/infer/cached_decoder.h - the decoder fed piece by piece: prefill, then token by token.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/base/enum_names.h"
#include "coca/infer/kv_cache.h"
#include "coca/infer/middle_keys.h"
#include "coca/model/decoder.h"
#include "coca/ops/decode_attention.h"

namespace coca::infer {

// Which length dynamic NTK reckons with while a sequence grows. The keys are rotated afresh either way.
//   kStep:    the length so far, as the official code. Hidden states of earlier tokens were made under earlier bases.
//   kRequest: the planned final length, from the first token on: equal to running the whole sequence at once.
enum class DynamicBase : uint8_t { kStep, kRequest };

class CachedDecoder {
 public:
  // Spec and weights must outlive the decoder. planned_length (> 0) is needed with kRequest. What is appended attends
  // to what the cache holds of it, rounded to its type.
  CachedDecoder(const model::ModelSpec&, const model::Weights&, int64_t B, DynamicBase policy = DynamicBase::kStep,
                int64_t planned_length = 0, KvType cache = KvType::kF32);

  // Appends ids [B, N] i32; returns their hidden states after the final norm, [B, N, C] of the matrices' type, valid
  // until the next call. A piece of a longer prompt says where that ends (`end`: the length in tokens then; 0: here),
  // for dynamic NTK.
  TensorRef append(Context&, TensorRef ids, int64_t end = 0);
  // The same in pieces of at most `piece` tokens, whose activations alone are in memory; dynamic NTK reckons with the
  // length at the end of ids throughout. Only last_logits() is of use afterwards.
  void prefill(Context&, TensorRef ids, int64_t piece);
  // Logits [B, V] of the last appended token, valid until the next call.
  TensorRef last_logits(Context&);

  // Takes the tokens from `length` on back. Throws where the cache has forgotten what the token then next would see.
  void truncate(int64_t length);

  const KvCache& cache() const { return cache_; }
  int64_t length() const { return cache_.length(); }

 private:
  class LayerCache;
  void check_ids(TensorRef) const;
  void prepare(int64_t N);
  MutTensorRef hidden() const { return acts_.ln1; }  // of the last layer no longer needed, and of the right type
  void forget();
  void build_angles(int64_t N, const ops::Rotation&);
  ops::DecodeFar far_side(const model::AttentionInputs&, int64_t N) const;
  ops::DecodeFar global_side(const model::Positions&, int64_t N) const;
  void attend(Context&, size_t layer, const model::AttentionInputs&, const ops::DecodeFar&);
  void attend_globals(Context&, size_t layer, int64_t count);

  const model::ModelSpec& spec_;
  const model::Weights& weights_;
  DynamicBase policy_;
  int64_t planned_length_;
  KvCache cache_;
  model::PositionSource positions_;
  ops::KeyAngles angles_, far_angles_;
  // Keys (or t) and values of the global tokens through their own projections, un-rotated, by layer: [B, global tokens,
  // G, K], K = key_width(), and [B, global tokens, G, D]. Only these tokens read them.
  std::vector<Tensor> global_keys_, global_values_;
  model::PositionSource global_positions_;
  model::Positions global_at_;
  int64_t B_, N_ = 0;
  Arena arena_;
  model::LayerActs acts_;
  MutTensorRef x_, y_;  // [M, C] f32
  MiddleKeys middle_;
  Tensor logits_;
};

}  // namespace coca::infer

COCA_ENUM_NAMES(coca::infer::DynamicBase, "dynamic base", {coca::infer::DynamicBase::kStep, "step"},
                {coca::infer::DynamicBase::kRequest, "request"})

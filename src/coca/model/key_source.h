// coca/model/key_source.h - where a layer's attention finds its keys and values: in the call itself (WholeSequences),
// in what earlier chunks of the sequence left (ChunkedSequence), on other ranks (ring_attention.h), in the cache
// (infer/cached_decoder.h).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/model/attention_inputs.h"
#include "coca/model/layer_acts.h"
#include "coca/model/params.h"
#include "coca/tensor/context.h"

namespace coca::model {

class KeySource {
 public:
  virtual ~KeySource() = default;
  // In front of the projections: tensors that are written elsewhere than in the activations get their place.
  virtual void place(const ModelSpec&, LayerActs&) const {}
  // From q, k (CoCA's t) and v to o, and to lse where the activations have it. Global tokens are projected here, from
  // ln1.
  virtual void attend(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, const AttentionInputs&,
                      LayerActs&) = 0;
};

// Whole sequences: the call's tokens are all there are.
class WholeSequences : public KeySource {
 public:
  void attend(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, const AttentionInputs&,
              LayerActs&) override;
};

// The keys and values of a sequence that comes in chunks.
struct LayerKeys {
  MutTensorRef k_eff, v;  // [B, N, G, D]
  MutTensorRef k_far;     // [B, far tokens, G, D]; patterns of models that transform keys only
  MutTensorRef decay;     // [B, H, N]; with Stage::kDecay only
  // Of the last token so far, [B, 1, G, K] [B, 1, G, D] [B, H, 2]; with Stage::kKeys, with Stage::kDecay only.
  MutTensorRef last_kt, last_v, last_decay;
};

// Tokens start, start + 1, ... of a sequence whose earlier tokens have been through here; k_eff and v of these are
// added.
class ChunkedSequence : public KeySource {
 public:
  ChunkedSequence(const LayerKeys& keys, int64_t start) : keys_(keys), start_(start) {}
  void place(const ModelSpec&, LayerActs&) const override;
  void attend(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, const AttentionInputs&,
              LayerActs&) override;

 private:
  LayerKeys keys_;
  int64_t start_;
};

}  // namespace coca::model

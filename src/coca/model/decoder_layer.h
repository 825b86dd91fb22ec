// coca/model/decoder_layer.h - one pre-norm decoder block for GPT-NeoX and LLaMA; the spec picks the variant.
//   sequential: mid = x + attn(ln1(x)); y = mid + mlp(ln2(mid))        parallel: y = x + attn(ln1(x)) + mlp(ln2(x))
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/model/attention_inputs.h"
#include "coca/model/key_source.h"
#include "coca/model/layer_acts.h"
#include "coca/model/params.h"
#include "coca/tensor/context.h"

namespace coca::model {

class RingAttention;

// y [M, C] is written; x [M, C] is read, and may be y.
void layer_forward(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, const AttentionInputs&, KeySource&,
                   TensorRef x, LayerActs&, MutTensorRef y);

// Its parts in front of and behind attention, for passes that go through a layer's tokens twice: up to q, kt and v;
// from o on.
void layer_project(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, TensorRef x, LayerActs&);
void layer_finish(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, TensorRef x, LayerActs&,
                  MutTensorRef y);

// What layer_forward computed from x and the policy dropped, again and in the same bits.
void layer_remake(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, const AttentionInputs&, KeySource&,
                  TensorRef x, Recompute, LayerActs&);

// stream [M, C] f32 holds the gradient of y on entry and that of x on return. Weight gradients accumulate (+=);
// those that dw lacks are not computed. ring: where keys come from, or null: from the call's own tokens.
void layer_backward(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, const AttentionInputs&,
                    RingAttention* ring, TensorRef x, const LayerActs&, LayerActGrads&, LayerTensors<MutTensorRef>& dw,
                    MutTensorRef stream);

}  // namespace coca::model

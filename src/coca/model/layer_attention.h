// coca/model/layer_attention.h - the attention of a decoder layer: windows, dilated ones, global tokens, both directions.
// Math: docs/math/longformer.md. Used by decoder_layer.cc, and by the cache for the global tokens' rows.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <tuple>

#include "coca/model/decoder_layer.h"
#include "coca/ops/attention.h"

namespace coca::model {

// For N tokens from the beginning of sequences: how many are global, and how many need the global projections' keys and
// values (causal: the global tokens, which attend only to each other; bidirectional: all).
struct GlobalRows {
  int64_t queries = 0, keys = 0;
};
GlobalRows global_rows(const ModelSpec&, int64_t N);

// Adds the global tokens' tensors to a plan through the two callbacks; nothing without global tokens. Views by finish.
using AddTensor = std::function<void(const char* name, const Dims&, MutTensorRef&)>;
void plan_global_acts(const ModelSpec&, int64_t B, int64_t N, const AddTensor& kept, const AddTensor& remade, LayerActs&);
void finish_global_acts(const ModelSpec&, LayerActs&);
void resize_global_acts(const ModelSpec&, int64_t B, int64_t N, LayerActs&);
void fill_global_acts(const LayerActs& shared, LayerActs&);
void plan_global_grads(const ModelSpec&, int64_t B, int64_t N, const AddTensor&, LayerActGrads&);
void finish_global_grads(const ModelSpec&, LayerActGrads&);

// Views of q [B, N, H, D], k [B, N, H, K] and v [B, N, H, D] in a fused projection's [B, N, H, 2 D + K].
inline std::tuple<MutTensorRef, MutTensorRef, MutTensorRef> split_qkv(const ModelSpec& s, MutTensorRef qkv) {
  const int64_t D = s.D, K = s.key_width();
  return {qkv.narrow(3, 0, D), qkv.narrow(3, D, K), qkv.narrow(3, D + K, D)};
}

// q_g, k_g, v_g of the first rows of each sequence, from ln1 [B * N, C].
void global_project(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, int64_t B, int64_t N, const GlobalRows&, LayerActs&);
// q [B, n, H, D] and k [B, S, G, K] to what attention sees, each with rows of its own; q_eff and k_eff are written. Nothing
// where attention sees q and k as they are.
void position_apart(Context&, const ModelSpec&, const ops::RopeRows& rows, const ops::RopeRows& key_rows, TensorRef q, TensorRef k,
                    MutTensorRef q_eff, MutTensorRef k_eff);
// The same for the global tokens of a pass.
void global_position(Context&, const ModelSpec&, const Positions&, LayerActs&);

// o (and lse) of all tokens here are written: rows start, start + 1, ... of sequences, with the keys k [B, S, G, D] and values v
// up to the last of them (bidirectional: of all). Global tokens stand in the first such call.
void attend_forward(Context&, const ModelSpec&, const Positions&, int64_t start, TensorRef k, TensorRef v, const ops::FarKeys&, LayerActs&);
// dq_eff, dk_eff and dv are written, and of global tokens dq_g, dk_g, dv_g.
void attend_backward(Context&, const ModelSpec&, const Positions&, const LayerActs&, LayerActGrads&);
// From there: dln1 += what came through the global projections; their gradients accumulate.
void global_project_backward(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, const LayerActs&, LayerActGrads&,
                             LayerTensors<MutTensorRef>& dw);

}  // namespace coca::model

// coca/model/layer_attention.h - the attention of a decoder layer: windows, dilated ones, global tokens, both
// directions. Math: docs/math/longformer.md. Key sources (key_source.h, the cache) are made of these.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/model/attention_inputs.h"
#include "coca/model/layer_acts.h"
#include "coca/model/params.h"
#include "coca/ops/attention.h"
#include "coca/ops/top_keys.h"

namespace coca::model {

// A layer's modifiers of one stage, on the tokens of whole sequences or of one chunk of one sequence (modifier.h). x:
// Stage::kQueries only, the queries to change.
void modify(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, const AttentionInputs&, Stage, LayerActs&,
            LayerCarry* = nullptr, MutTensorRef x = {});
void modify_backward(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, const AttentionInputs&, Stage,
                     const LayerActs&, LayerActGrads&, LayerTensors<MutTensorRef>& dw);

// What modifiers of every stage make of ln1, for all rows of a call; and dln1 += what came back that way.
void project_modifiers(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, LayerActs&);
void project_modifiers_backward(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, const LayerActs&,
                                LayerActGrads&, LayerTensors<MutTensorRef>& dw);

// q, kt_in and v_in to what attention sees: kt, v, q_eff, k_eff and decay are written, where they are not the same.
void transform(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, const AttentionInputs&, LayerActs&,
               LayerCarry* = nullptr);
// q_eff is written from q alone, for keys that are elsewhere.
void transform_queries(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, const AttentionInputs&,
                       LayerActs&);
// q [B, n, H, D] and kt [B, S, G, K] likewise, each with rows of its own.
void transform_apart(Context&, const ModelSpec&, const ops::RopeRows& rows, const ops::RopeRows& key_rows, TensorRef q,
                     TensorRef kt, MutTensorRef q_eff, MutTensorRef k_eff);
// q_far is written: the queries as they stand towards keys beyond the window.
void transform_far_queries(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, const AttentionInputs&,
                           LayerActs&);

// q_g, kt_g, v_g of the first rows of each sequence, from ln1 [B * N, C].
void global_project(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, int64_t B, int64_t N,
                    const GlobalRows&, LayerActs&);
// q_g_eff and k_g_eff of the global tokens of a pass.
void global_transform(Context&, const ModelSpec&, const Positions&, LayerActs&);

// o (and lse) of all tokens here are written: rows start, start + 1, ... of sequences, with the keys k [B, S, G, D] and
// values v up to the last of them (bidirectional: of all). Global tokens stand in the first such call. decay [B, H, S]:
// that of the keys, with Stage::kDecay.
void attend(Context&, const ModelSpec&, const AttentionInputs&, int64_t start, TensorRef k, TensorRef v,
            TensorRef decay, const ops::FarKeys&, LayerActs&);
// dq_eff, dk_eff, dv and ddecay are written, and of global tokens dq_g, dkt_g, dv_g.
void attend_backward(Context&, const ModelSpec&, const AttentionInputs&, const LayerActs&, LayerActGrads&);
// From there: dln1 += what came through the global projections; their gradients accumulate.
void global_project_backward(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, const LayerActs&,
                             LayerActGrads&, LayerTensors<MutTensorRef>& dw);

// How top_keys looks for keys of the middle (ops/top_keys.h).
ops::TopKeysOptions middle_options(const ModelSpec&, const AttentionScope&, int64_t query_start);

}  // namespace coca::model

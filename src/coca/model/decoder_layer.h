// coca/model/decoder_layer.h - one pre-norm decoder block for GPT-NeoX and LLaMA; the spec picks the variant.
//   sequential: mid = x + attn(ln1(x)); y = mid + mlp(ln2(mid))        parallel: y = x + attn(ln1(x)) + mlp(ln2(x))
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>

#include "coca/base/enum_names.h"
#include "coca/model/params.h"
#include "coca/model/spec.h"
#include "coca/ops/rope.h"
#include "coca/ops/top_keys.h"
#include "coca/tensor/arena.h"
#include "coca/tensor/context.h"

namespace coca::model {

class RingAttention;

// Where tokens stand: rows of cos and sin (empty where attention sees q and k as they are) and ALiBi's slopes (empty
// without ALiBi).
struct Positions {
  ops::RopeRows rows;
  ops::RopeRows key_rows;  // of keys, where they are others than the queries' (xPos); else empty
  // Patterns (pattern.h): slack's queries turn on by these angles; empty: they do not.
  ops::RopeRows turn;
  // The first `tokens` of a sequence are seen beyond the window too, at other positions.
  struct Far {
    int64_t tokens = 0;
    ops::RopeRows rows, key_rows;  // of the queries towards them; of the tokens here as such keys
    int64_t most_distance = 0, most_position = 0;  // ALiBi (ops/attention.h)
    int64_t top = 0;  // keys of the middle that each query and head picks in this layer (LM-Infinite)
  } far;
  TensorRef slopes;    // [H]
  int64_t window = 0;  // keys a query sees, itself included; 0: all
  std::span<const int64_t> dilation;  // [H] of the window; empty: none
  TensorRef global_start;    // [N or more] i32, all the number of global tokens: where windows begin; without these empty
  TensorRef document_start;  // [B, N] i32, packed documents: no token sees one in front of this place; empty: none

  RingAttention* ring = nullptr;  // sequences are split over ranks, and attention goes by way of it

  MutTensorRef dangle;       // [B, N, R/2] f32: gradient of the rows' angles, added to; empty: not wanted

  const ops::RopeRows& keys() const { return key_rows.cos.empty() ? rows : key_rows; }
  Positions narrow(int64_t first, int64_t count) const;           // of `count` tokens from the `first` of these
  Positions in_layer(const ModelSpec&, size_t layer) const;       // with that layer's window
};

// Everything a layer computes on the way, M = B * N. In training each layer has its own, or as much of it as its
// Recompute keeps; inference shares one.
struct LayerActs {
  MutTensorRef ln1, ln1_stat;    // [M, C] [M, 2]
  MutTensorRef qkv;              // [B, N, H, 2 D + K], K = key_width(); fused projections only
  MutTensorRef q_raw, k_raw;     // as q, k: the projections in front of their norms; with HeadNorm only
  MutTensorRef q_stat, k_stat;   // [B, N, H, 2] [B, N, G, 2]
  MutTensorRef q, k, v;          // [B, N, H, D] [B, N, G, K] [B, N, G, D]; views of qkv when fused; k is CoCA's t
  MutTensorRef q_eff, k_eff;     // as q, v: what attention sees (rotated, or collinear); q, k without rotary
  MutTensorRef q_far, k_far;     // as q, v: what attention sees beyond the window; patterns only
  // Of global tokens (layer_attention.h), n of them and keys of m: [B, m, H, 2 D + K]; [B, n, H, D] [B, m, G, K] [B, m, G, D].
  MutTensorRef qkv_g, q_g, k_g, v_g, q_g_eff, k_g_eff;
  MutTensorRef o, lse;           // [B, N, H, D] [B, H, N]
  MutTensorRef top_scores, top_keys;  // [B, N, H, top]; LM-Infinite's keys of the middle only
  MutTensorRef mid;              // [M, C]; sequential residual only
  MutTensorRef ln2, ln2_stat;    // [M, C] [M, 2]
  MutTensorRef gate, up, act;    // [M, F]; gate with SwiGLU only
  MutTensorRef branch, branch2;  // [M, C] outputs of attention and mlp; never needed backward, so shared
};

// What training remakes in front of each layer's backward pass instead of keeping it. Docs: docs/memory.md.
//   kNone:      nothing
//   kAttention: what costs a pass over memory and no product: attention's inputs q_eff and k_eff, the outputs of the
//               norms and of the mlp's activation. Attention's output and lse are kept.
//   kLayer:     everything; only the input of each layer is kept
enum class Recompute : uint8_t { kNone, kAttention, kLayer };

// Tokens of a call, and the type of what flows between the products of a layer: of the activations, beside those that
// are fp32 in any case (mid, statistics, lse).
struct ActShape {
  int64_t B = 0, N = 0;
  DType dtype = DType::kF32;
};

// Which tensors of a layer go into a plan. kAll is everything backward reads; kKept and kRemade are its two parts under
// Recompute::kAttention. kForward leaves out what backward alone reads; kChunk also k_eff, and v of a separate
// projection, which a chunk writes into its sequence's LayerKeys.
enum class Acts : uint8_t { kAll, kKept, kRemade, kForward, kChunk };

// Adds tensors of one layer to the plan. finish_layer_acts() makes the views once the arena is bound.
void plan_layer_acts(const ModelSpec&, const ActShape&, const std::string& prefix, Acts, ArenaPlan&, LayerActs&);
void finish_layer_acts(const ModelSpec&, LayerActs&);
// Tensors that `a` does not have are those of `shared`. Before finish_layer_acts().
void fill_layer_acts(const LayerActs& shared, LayerActs& a);
// The same memory for fewer tokens, B * N at most those planned. Not finished before; finished after.
LayerActs resize_layer_acts(const ModelSpec&, const LayerActs&, int64_t B, int64_t N);

// Forward only: one layer's tensors serve all layers, x and y [M, C] f32 are the stream in front of and behind a layer.
// Binds everything into the arena (which grows when needed); what was there before is lost.
void bind_forward_acts(const ModelSpec&, const ActShape&, Arena&, LayerActs&, MutTensorRef& x, MutTensorRef& y);

// The keys and values of sequences that come in chunks.
struct LayerKeys {
  MutTensorRef k_eff, v;  // [B, N, G, D]
  MutTensorRef k_far;     // [B, far tokens, G, D]; patterns of models that transform keys only
};

// q_far is written: the queries as they stand towards keys beyond the window.
void layer_far_queries(Context&, const ModelSpec&, const Positions&, const LayerActs&);
// How top_keys looks for keys of the middle (ops/top_keys.h).
ops::TopKeysOptions middle_options(const ModelSpec&, const Positions&, int64_t query_start);

// The three parts of the forward pass; cached decoding replaces the middle one.
void layer_project(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, TensorRef x, LayerActs&);
void layer_position(Context&, const ModelSpec&, const Positions&, LayerActs&);  // the first step of layer_attend
void layer_attend(Context&, const ModelSpec&, const Positions&, LayerActs&);
void layer_finish(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, TensorRef x, LayerActs&, MutTensorRef y);

// y [M, C] is written; x [M, C] is read, and may be y.
void layer_forward(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, const Positions&, TensorRef x,
                   LayerActs&, MutTensorRef y);
// Tokens start, start + 1, ... of sequences whose earlier tokens have been through here; k_eff and v of these are added
// to the keys. Positions are the chunk's own. x [M, C] is updated in place.
void layer_forward_chunk(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, const Positions&, int64_t start,
                         const LayerKeys&, LayerActs&, MutTensorRef x);

// What layer_forward computed from x and the policy dropped, again and in the same bits.
void layer_remake(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, const Positions&, TensorRef x, Recompute,
                  LayerActs&);

// Gradients of the activations, shared by all layers, of the activations' type.
struct LayerActGrads {
  MutTensorRef dy;               // [M, C] the stream's gradient as the products read it; bf16 only
  MutTensorRef dln1, dln2;       // [M, C] f32: they end in the stream
  MutTensorRef dqkv;             // [B, N, H, 2 D + K]; fused only
  MutTensorRef dq, dk, dv;       // as q, k, v
  MutTensorRef dq_eff, dk_eff;   // as q_eff, k_eff; dq, dk without rotary
  MutTensorRef dqkv_g, dq_g, dk_g, dv_g, dq_g_eff, dk_g_eff;  // as qkv_g, ...
  MutTensorRef dq_far, dk_far;   // [B, N - n, H, D] [B, n, G, D] of the other tokens towards the n global ones
  MutTensorRef d_o;              // [B, N, H, D]
  MutTensorRef dgate, dup, dact; // [M, F]
};
void plan_layer_act_grads(const ModelSpec&, const ActShape&, ArenaPlan&, LayerActGrads&);
void finish_layer_act_grads(const ModelSpec&, LayerActGrads&);

// stream [M, C] f32 holds the gradient of y on entry and that of x on return. Weight gradients accumulate (+=);
// those that dw lacks are not computed.
void layer_backward(Context&, const ModelSpec&, const LayerTensors<TensorRef>& w, const Positions&, TensorRef x,
                    const LayerActs&, LayerActGrads&, LayerTensors<MutTensorRef>& dw, MutTensorRef stream);

}  // namespace coca::model

COCA_ENUM_NAMES(coca::model::Recompute, "recompute", {coca::model::Recompute::kNone, "none"},
                {coca::model::Recompute::kAttention, "attention"}, {coca::model::Recompute::kLayer, "layer"})

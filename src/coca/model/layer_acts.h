// coca/model/layer_acts.h - what a decoder layer computes on the way, and the gradients of it: shapes, and their places
// in an arena. layer_acts.cc lists the tensors once; planning, filling and resizing walk that list.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string>
#include <tuple>

#include "coca/base/enum_names.h"
#include "coca/model/spec.h"
#include "coca/tensor/arena.h"

namespace coca::model {

// M = B * N. In training each layer has its own, or as much of it as its Recompute keeps; inference shares one.
struct LayerActs {
  MutTensorRef ln1, ln1_stat;   // [M, C] [M, 2]
  MutTensorRef qkv;             // [B, N, H, 2 D + K], K = key_width(); fused projections only
  MutTensorRef q_raw, k_raw;    // as q, kt: the projections in front of their norms; with HeadNorm only
  MutTensorRef q_stat, k_stat;  // [B, N, H, 2] [B, N, G, 2]
  // [B, N, H, D] [B, N, G, K] [B, N, G, D]; q, kt_in and v_in are views of qkv when fused. kt is CoCA's t, and k
  // otherwise. kt_in and v_in: in front of the modifiers of keys (Stage::kKeys); kt and v where there are none.
  MutTensorRef q, kt_in, v_in, kt, v;
  MutTensorRef q_eff, k_eff;  // as q, v: what attention sees (rotated, or collinear); q, kt without rotary
  MutTensorRef q_far, k_far;  // as q, v: what attention sees beyond the window; patterns only
  // Of global tokens (layer_attention.h), n of them and keys of m: [B, m, H, 2 D + K]; [B, n, H, D] [B, m, G, K] [B, m,
  // G, D].
  MutTensorRef qkv_g, q_g, kt_g, v_g, q_g_eff, k_g_eff;
  MutTensorRef decay;                            // [B, H, N] f32; with Stage::kDecay only
  MutTensorRef o, lse;                           // [B, N, H, D] [B, H, N]
  MutTensorRef o_out;                            // as o: behind the modifiers of Stage::kOutput; o where there are none
  std::array<MutTensorRef, kMostModifiers> own;  // [M, X] of each modifier that has one (Modifier::own_width)
  MutTensorRef top_scores, top_keys;             // [B, N, H, top]; LM-Infinite's keys of the middle only
  MutTensorRef mid;                              // [M, C]; sequential residual only
  MutTensorRef ln2, ln2_stat;                    // [M, C] [M, 2]
  MutTensorRef gate, up, act;                    // [M, F]; gate with SwiGLU only
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

// For N tokens from the beginning of sequences: how many are global, and how many need the global projections' keys and
// values (causal: the global tokens, which attend only to each other; bidirectional: all).
struct GlobalRows {
  int64_t queries = 0, keys = 0;
};
GlobalRows global_rows(const ModelSpec&, int64_t N);

// Views of q [B, N, H, D], kt [B, N, H, K] and v [B, N, H, D] in a fused projection's [B, N, H, 2 D + K].
inline std::tuple<MutTensorRef, MutTensorRef, MutTensorRef> split_qkv(const ModelSpec& s, MutTensorRef qkv) {
  const int64_t D = s.D, K = s.key_width();
  return {qkv.narrow(3, 0, D), qkv.narrow(3, D, K), qkv.narrow(3, D + K, D)};
}

// Which tensors of a layer go into a plan. kAll is everything backward reads; kKept and kRemade are its two parts under
// Recompute::kAttention. kForward leaves out what backward alone reads; kChunk also k_eff, and v of a separate
// projection, which a chunk writes into its sequence's LayerKeys. None has the branches, which layers share.
enum class Acts : uint8_t { kAll, kKept, kRemade, kForward, kChunk };

// Adds tensors of one layer to the plan. finish_layer_acts() makes the views once the arena is bound.
void plan_layer_acts(const ModelSpec&, const ActShape&, const std::string& prefix, Acts, ArenaPlan&, LayerActs&);
void finish_layer_acts(const ModelSpec&, LayerActs&);
// Tensors that `a` does not have are those of `shared`. Before finish_layer_acts().
void fill_layer_acts(const ModelSpec&, const ActShape&, const LayerActs& shared, LayerActs& a);
// The same memory for fewer tokens, B * N at most those planned. Not finished before; finished after.
LayerActs resize_layer_acts(const ModelSpec&, const LayerActs&, int64_t B, int64_t N);

// Forward only: one layer's tensors serve all layers, x and y [M, C] f32 are the stream in front of and behind a layer.
// Binds everything into the arena (which grows when needed); what was there before is lost.
void bind_forward_acts(const ModelSpec&, const ActShape&, Arena&, LayerActs&, MutTensorRef& x, MutTensorRef& y);

// Gradients of the activations, shared by all layers, of the activations' type.
struct LayerActGrads {
  MutTensorRef dy;                                // [M, C] the stream's gradient as the products read it; bf16 only
  MutTensorRef dln1, dln2;                        // [M, C] f32: they end in the stream
  MutTensorRef dqkv;                              // [B, N, H, 2 D + K]; fused only
  MutTensorRef dq, dkt, dv;                       // as q, kt, v
  MutTensorRef dkt_in, dv_in;                     // as kt_in, v_in
  MutTensorRef ddecay;                            // as decay
  std::array<MutTensorRef, kMostModifiers> down;  // as own
  MutTensorRef dq_eff, dk_eff;                    // as q_eff, k_eff; dq, dkt without rotary
  MutTensorRef dqkv_g, dq_g, dkt_g, dv_g, dq_g_eff, dk_g_eff;  // as qkv_g, ...
  MutTensorRef dq_far, dk_far;    // [B, N - n, H, D] [B, n, G, D] of the other tokens towards the n global ones
  MutTensorRef d_o;               // [B, N, H, D]
  MutTensorRef dgate, dup, dact;  // [M, F]
  MutTensorRef dangle;            // [B, N, R/2] f32 of the rows' angles, added to; not in plans; empty: not wanted
};
void plan_layer_act_grads(const ModelSpec&, const ActShape&, ArenaPlan&, LayerActGrads&);
void finish_layer_act_grads(const ModelSpec&, LayerActGrads&);

}  // namespace coca::model

COCA_ENUM_NAMES(coca::model::Recompute, "recompute", {coca::model::Recompute::kNone, "none"},
                {coca::model::Recompute::kAttention, "attention"}, {coca::model::Recompute::kLayer, "layer"})

// SPDX-License-Identifier: Apache-2.0
#include "coca/model/layer_acts.h"

#include <algorithm>

namespace coca::model {

namespace {

// When a tensor is there.
enum class Use : uint8_t {
  kKept,      // read backward: costs a product to make again
  kRemade,    // read backward: costs a pass over memory (Recompute::kAttention)
  kKeys,      // as kKept, but a chunk writes it into its sequence's LayerKeys
  kMadeKeys,  // as kRemade, likewise
  kBackward,  // read backward only
  kForward,   // read forward only
  kBranch,    // shared by all layers, planned by their owner
};
enum class Of : uint8_t { kActs, kF32, kI32 };  // type: that of the activations, or always the same

// A tensor of LayerActs: a member, or a modifier's own.
struct Member {
  MutTensorRef LayerActs::*member = nullptr;
  size_t modifier = 0;
  Member(MutTensorRef LayerActs::*m) : member(m) {}  // NOLINT(google-explicit-constructor): a member is one
  static Member own(size_t modifier) {
    Member m(nullptr);
    m.modifier = modifier;
    return m;
  }
  MutTensorRef& of(LayerActs& a) const { return member ? a.*member : a.own[modifier]; }
  const MutTensorRef& of(const LayerActs& a) const { return member ? a.*member : a.own[modifier]; }
};

// visit(name, member, shape, use, type) for every tensor that a layer of this spec has for B sequences of N tokens.
template <typename Visit>
void each_act(const ModelSpec& s, int64_t B, int64_t N, const Visit& visit) {
  using A = LayerActs;
  const int64_t M = B * N, K = s.key_width(), E = s.score_width();
  const bool fused = s.qkv == Qkv::kFused, head_norms = s.head_norm != HeadNorm::kNone,
             turns = transforms_keys(s.attention), mixes = has_stage(s, Stage::kKeys);
  visit("ln1", &A::ln1, Dims{M, s.C}, Use::kRemade, Of::kActs);
  if (fused) {
    visit("qkv", &A::qkv, Dims{B, N, s.H, s.qkv_width()}, Use::kKept, Of::kActs);
  } else {
    if (head_norms) {
      visit("q_raw", &A::q_raw, Dims{B, N, s.H, s.D}, Use::kKept, Of::kActs);
      visit("k_raw", &A::k_raw, Dims{B, N, s.G, s.D}, Use::kKept, Of::kActs);
      visit("q_stat", &A::q_stat, Dims{B, N, s.H, 2}, Use::kBackward, Of::kF32);
      visit("k_stat", &A::k_stat, Dims{B, N, s.G, 2}, Use::kBackward, Of::kF32);
    }
    const Use use = head_norms ? Use::kRemade : Use::kKept;
    visit("q", &A::q, Dims{B, N, s.H, s.D}, use, Of::kActs);
    visit("k", mixes ? &A::kt_in : &A::kt, Dims{B, N, s.G, K}, use, Of::kActs);
    visit("v", mixes ? &A::v_in : &A::v, Dims{B, N, s.G, s.D}, mixes ? Use::kKept : Use::kKeys, Of::kActs);
  }
  if (mixes) {
    visit("k_mixed", &A::kt, Dims{B, N, s.G, K}, Use::kRemade, Of::kActs);
    visit("v_mixed", &A::v, Dims{B, N, s.G, s.D}, Use::kMadeKeys, Of::kActs);
  }
  if (has_stage(s, Stage::kDecay)) visit("decay", &A::decay, Dims{B, s.H, N}, Use::kKeys, Of::kF32);
  for (size_t i = 0; i < s.modifiers.size(); ++i)
    if (const int64_t X = s.modifiers[i]->own_width(s); X > 0)
      visit(s.modifiers[i]->info().name, Member::own(i), Dims{M, X}, Use::kKept, Of::kActs);
  const bool changes_q = turns || has_stage(s, Stage::kQueries);
  if (changes_q) visit("q_eff", &A::q_eff, Dims{B, N, s.H, E}, Use::kRemade, Of::kActs);
  if (turns) visit("k_eff", &A::k_eff, Dims{B, N, s.G, E}, Use::kMadeKeys, Of::kActs);
  if (s.pattern.far()) {
    if (changes_q) visit("q_far", &A::q_far, Dims{B, N, s.H, E}, Use::kRemade, Of::kActs);
    if (turns) visit("k_far", &A::k_far, Dims{B, N, s.G, E}, Use::kMadeKeys, Of::kActs);
  }
  if (const GlobalRows n = global_rows(s, N); n.queries > 0) {
    if (fused) {
      visit("qkv_g", &A::qkv_g, Dims{B, n.keys, s.H, s.qkv_width()}, Use::kKept, Of::kActs);
    } else {
      visit("q_g", &A::q_g, Dims{B, n.queries, s.H, s.D}, Use::kKept, Of::kActs);
      visit("k_g", &A::kt_g, Dims{B, n.keys, s.G, K}, Use::kKept, Of::kActs);
      visit("v_g", &A::v_g, Dims{B, n.keys, s.G, s.D}, Use::kKept, Of::kActs);
    }
    if (turns) {
      visit("q_g_eff", &A::q_g_eff, Dims{B, n.queries, s.H, E}, Use::kRemade, Of::kActs);
      visit("k_g_eff", &A::k_g_eff, Dims{B, n.keys, s.G, E}, Use::kRemade, Of::kActs);
    }
  }
  visit("o", &A::o, Dims{B, N, s.H, s.D}, Use::kKept, Of::kActs);
  if (has_stage(s, Stage::kOutput)) visit("o_out", &A::o_out, Dims{B, N, s.H, s.D}, Use::kRemade, Of::kActs);
  const bool looks_back = s.pattern.looks_back();  // evaluation only
  const Use lse = looks_back ? Use::kForward : has_stage(s, Stage::kSoftmax) ? Use::kKept : Use::kBackward;
  visit("lse", &A::lse, Dims{B, s.H, N}, lse, Of::kF32);
  if (looks_back) {
    visit("top_scores", &A::top_scores, Dims{B, N, s.H, s.pattern.middle_top_k}, Use::kForward, Of::kF32);
    visit("top_keys", &A::top_keys, Dims{B, N, s.H, s.pattern.middle_top_k}, Use::kForward, Of::kI32);
  }
  if (s.residual == ResidualKind::kSequential) visit("mid", &A::mid, Dims{M, s.C}, Use::kKept, Of::kF32);
  visit("ln2", &A::ln2, Dims{M, s.C}, Use::kRemade, Of::kActs);
  if (s.mlp == Mlp::kSwiGlu) visit("gate", &A::gate, Dims{M, s.F}, Use::kKept, Of::kActs);
  visit("up", &A::up, Dims{M, s.F}, Use::kKept, Of::kActs);
  visit("act", &A::act, Dims{M, s.F}, Use::kRemade, Of::kActs);
  visit("ln1_stat", &A::ln1_stat, Dims{M, 2}, Use::kBackward, Of::kF32);
  visit("ln2_stat", &A::ln2_stat, Dims{M, 2}, Use::kBackward, Of::kF32);
  visit("branch", &A::branch, Dims{M, s.C}, Use::kBranch, Of::kActs);
  visit("branch2", &A::branch2, Dims{M, s.C}, Use::kBranch, Of::kActs);
}

// What an arena does not hold of the global tokens: views of a fused projection, of which `queries` rows have queries,
// and what attention sees where that is not transformed.
void make_global_views(const ModelSpec& s, MutTensorRef fused, int64_t queries, MutTensorRef& q, MutTensorRef& kt,
                       MutTensorRef& v, MutTensorRef& q_eff, MutTensorRef& k_eff) {
  if (s.qkv == Qkv::kFused) {
    std::tie(q, kt, v) = split_qkv(s, fused);
    q = q.narrow(1, 0, std::min(queries, fused.size(1)));
  }
  if (transforms_keys(s.attention)) return;
  q_eff = q;
  k_eff = kt;
}

bool planned(Acts which, Use use) {
  const bool forward_only = which == Acts::kForward || which == Acts::kChunk;
  switch (use) {
    case Use::kKept:
    case Use::kForward: return which != Acts::kRemade;
    case Use::kRemade: return which != Acts::kKept;
    case Use::kKeys: return which != Acts::kRemade && which != Acts::kChunk;
    case Use::kMadeKeys: return which != Acts::kKept && which != Acts::kChunk;
    case Use::kBackward: return !forward_only && which != Acts::kRemade;
    case Use::kBranch: return false;
  }
  return false;
}

}  // namespace

GlobalRows global_rows(const ModelSpec& s, int64_t N) {
  const int64_t queries = std::min(s.global_tokens, N);
  return {queries, s.direction == Direction::kBidirectional && queries > 0 ? N : queries};
}

void plan_layer_acts(const ModelSpec& s, const ActShape& shape, const std::string& prefix, Acts which, ArenaPlan& plan,
                     LayerActs& a) {
  each_act(s, shape.B, shape.N, [&](std::string_view name, const Member& member, const Dims& dims, Use use, Of type) {
    const DType dtype = type == Of::kActs ? shape.dtype : type == Of::kF32 ? DType::kF32 : DType::kI32;
    if (planned(which, use)) plan.add(prefix + std::string(name), dims, dtype, &member.of(a));
  });
}

void finish_layer_acts(const ModelSpec& s, LayerActs& a) {
  if (has_stage(s, Stage::kKeys)) {
    if (s.qkv == Qkv::kFused) std::tie(a.q, a.kt_in, a.v_in) = split_qkv(s, a.qkv);
  } else {
    if (s.qkv == Qkv::kFused) std::tie(a.q, a.kt, a.v) = split_qkv(s, a.qkv);
    a.kt_in = a.kt;
    a.v_in = a.v;
  }
  const bool turns = transforms_keys(s.attention), changes_q = turns || has_stage(s, Stage::kQueries);
  if (!changes_q) a.q_eff = a.q;
  if (!turns) a.k_eff = a.kt;
  if (!has_stage(s, Stage::kOutput)) a.o_out = a.o;
  if (s.pattern.far() && !changes_q) a.q_far = a.q;
  if (s.pattern.far() && !turns) a.k_far = a.kt;
  if (s.global_tokens > 0) make_global_views(s, a.qkv_g, s.global_tokens, a.q_g, a.kt_g, a.v_g, a.q_g_eff, a.k_g_eff);
}

void fill_layer_acts(const ModelSpec& s, const ActShape& shape, const LayerActs& shared, LayerActs& a) {
  each_act(s, shape.B, shape.N, [&](std::string_view, const Member& member, const Dims&, Use, Of) {
    if (member.of(a).empty()) member.of(a) = member.of(shared);
  });
}

LayerActs resize_layer_acts(const ModelSpec& s, const LayerActs& whole, int64_t B, int64_t N) {
  LayerActs a = whole;
  each_act(s, B, N, [&](std::string_view, const Member& member, const Dims& dims, Use, Of) {
    if (!member.of(a).empty()) member.of(a) = member.of(a).resized(dims);
  });
  finish_layer_acts(s, a);
  return a;
}

void bind_forward_acts(const ModelSpec& s, const ActShape& shape, Arena& arena, LayerActs& a, MutTensorRef& x,
                       MutTensorRef& y) {
  a = {};
  ArenaPlan plan;
  const Dims stream{shape.B * shape.N, s.C};
  plan.add("x", stream, DType::kF32, &x);
  plan.add("y", stream, DType::kF32, &y);
  plan_layer_acts(s, shape, "layer.", Acts::kForward, plan, a);
  plan.add("branch", stream, shape.dtype, &a.branch);
  plan.add("branch2", stream, shape.dtype, &a.branch2);
  arena.bind(plan);
  finish_layer_acts(s, a);
}

void plan_layer_act_grads(const ModelSpec& s, const ActShape& shape, ArenaPlan& plan, LayerActGrads& g) {
  const auto [B, N, type] = shape;
  const int64_t M = B * N, E = s.score_width();
  const bool fused = s.qkv == Qkv::kFused, turns = transforms_keys(s.attention);
  const auto add = [&, type = type](const char* name, const Dims& dims, MutTensorRef& slot) {
    plan.add(std::string("grad.") + name, dims, type, &slot);
  };
  if (type != DType::kF32) add("dy", {M, s.C}, g.dy);
  plan.add("grad.dln1", {M, s.C}, DType::kF32, &g.dln1);
  plan.add("grad.dln2", {M, s.C}, DType::kF32, &g.dln2);
  const bool mixes = has_stage(s, Stage::kKeys);
  if (fused) {
    add("dqkv", {B, N, s.H, s.qkv_width()}, g.dqkv);
  } else {
    add("dq", {B, N, s.H, s.D}, g.dq);
    add("dk", {B, N, s.G, s.key_width()}, mixes ? g.dkt_in : g.dkt);
    add("dv", {B, N, s.G, s.D}, mixes ? g.dv_in : g.dv);
  }
  if (mixes) {
    add("dk_mixed", {B, N, s.G, s.key_width()}, g.dkt);
    add("dv_mixed", {B, N, s.G, s.D}, g.dv);
  }
  if (has_stage(s, Stage::kDecay)) plan.add("grad.ddecay", {B, s.H, N}, DType::kF32, &g.ddecay);
  for (size_t i = 0; i < s.modifiers.size(); ++i)
    if (const int64_t X = s.modifiers[i]->own_width(s); X > 0)
      add(std::string(s.modifiers[i]->info().name).c_str(), {M, X}, g.down[i]);
  if (turns) {
    add("dq_eff", {B, N, s.H, E}, g.dq_eff);
    add("dk_eff", {B, N, s.G, E}, g.dk_eff);
  }
  if (const GlobalRows n = global_rows(s, N); n.queries > 0) {
    if (fused) {
      add("dqkv_g", {B, n.keys, s.H, s.qkv_width()}, g.dqkv_g);
    } else {
      add("dq_g", {B, n.queries, s.H, s.D}, g.dq_g);
      add("dk_g", {B, n.keys, s.G, s.key_width()}, g.dkt_g);
      add("dv_g", {B, n.keys, s.G, s.D}, g.dv_g);
    }
    if (turns) {
      add("dq_g_eff", {B, n.queries, s.H, E}, g.dq_g_eff);
      add("dk_g_eff", {B, n.keys, s.G, E}, g.dk_g_eff);
    }
    if (N > n.queries) {
      add("dq_far", {B, N - n.queries, s.H, E}, g.dq_far);
      add("dk_far", {B, n.queries, s.G, E}, g.dk_far);
    }
  }
  add("d_o", {B, N, s.H, s.D}, g.d_o);
  if (s.mlp == Mlp::kSwiGlu) add("dgate", {M, s.F}, g.dgate);
  add("dup", {M, s.F}, g.dup);
  add("dact", {M, s.F}, g.dact);
}

void finish_layer_act_grads(const ModelSpec& s, LayerActGrads& g) {
  if (has_stage(s, Stage::kKeys)) {
    if (s.qkv == Qkv::kFused) std::tie(g.dq, g.dkt_in, g.dv_in) = split_qkv(s, g.dqkv);
  } else {
    if (s.qkv == Qkv::kFused) std::tie(g.dq, g.dkt, g.dv) = split_qkv(s, g.dqkv);
    g.dkt_in = g.dkt;
    g.dv_in = g.dv;
  }
  if (!transforms_keys(s.attention)) {
    g.dq_eff = g.dq;
    g.dk_eff = g.dkt;
  }
  if (s.global_tokens > 0)
    make_global_views(s, g.dqkv_g, s.global_tokens, g.dq_g, g.dkt_g, g.dv_g, g.dq_g_eff, g.dk_g_eff);
}

}  // namespace coca::model

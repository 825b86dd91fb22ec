// SPDX-License-Identifier: Apache-2.0
#include "coca/model/decoder_layer.h"

#include "coca/ops/activation.h"
#include "coca/ops/attention.h"
#include "coca/ops/collinear.h"
#include "coca/ops/linear.h"
#include "coca/ops/norm.h"
#include "coca/ops/residual.h"
#include "coca/ops/rope.h"

namespace coca::model {

namespace {

// [B, N, H, D] as the [M, H D] rows a linear layer reads.
TensorRef flat_heads(TensorRef t) { return t.reshape({t.size(0) * t.size(1), t.size(2) * t.size(3)}); }
MutTensorRef flat_heads(MutTensorRef t) { return t.reshape({t.size(0) * t.size(1), t.size(2) * t.size(3)}); }
MutTensorRef flat_fused(MutTensorRef t) { return t.reshape({t.size(0) * t.size(1), t.size(2) * t.size(3) * t.size(4)}); }

ops::AttentionOptions attention_options() { return {.mask = ops::Mask::kCausal}; }

void mlp_forward(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, LayerActs& a, MutTensorRef y) {
  ops::linear_forward(cx, {.x = a.ln2, .w = w.up_w, .b = w.up_b, .y = a.up});
  if (s.mlp == Mlp::kSwiGlu) {
    ops::linear_forward(cx, {.x = a.ln2, .w = w.gate_w, .y = a.gate});
    ops::swiglu_forward(cx, {.gate = a.gate, .up = a.up, .y = a.act});
  } else {
    ops::gelu_forward(cx, {.kind = s.mlp == Mlp::kGelu ? ops::Gelu::kExact : ops::Gelu::kTanh, .x = a.up, .y = a.act});
  }
  ops::linear_forward(cx, {.x = a.act, .w = w.down_w, .b = w.down_b, .y = y});
}

// dln2 is written.
void mlp_backward(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const LayerActs& a,
                  LayerActGrads& g, LayerTensors<MutTensorRef>& dw, TensorRef dy) {
  ops::linear_backward(cx, {.x = a.act, .w = w.down_w, .dy = dy, .dx = g.dact, .dw = dw.down_w, .db = dw.down_b});
  if (s.mlp == Mlp::kSwiGlu) {
    ops::swiglu_backward(cx, {.gate = a.gate, .up = a.up, .dy = g.dact, .dgate = g.dgate, .dup = g.dup});
    ops::linear_backward(cx, {.x = a.ln2, .w = w.gate_w, .dy = g.dgate, .dx = g.dln2, .dw = dw.gate_w});
    ops::linear_backward(cx, {.x = a.ln2, .w = w.up_w, .dy = g.dup, .dx = g.dln2, .dw = dw.up_w, .db = dw.up_b,
                              .dx_write = ops::Write::kAccumulate});
  } else {
    ops::gelu_backward(cx, {.kind = s.mlp == Mlp::kGelu ? ops::Gelu::kExact : ops::Gelu::kTanh, .x = a.up,
                            .dy = g.dact, .dx = g.dup});
    ops::linear_backward(cx, {.x = a.ln2, .w = w.up_w, .dy = g.dup, .dx = g.dln2, .dw = dw.up_w, .db = dw.up_b});
  }
}

// From dy of the attention branch down to dln1 (written).
void attention_branch_backward(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w,
                               const Positions& at, const LayerActs& a, LayerActGrads& g,
                               LayerTensors<MutTensorRef>& dw, TensorRef dy) {
  ops::linear_backward(cx, {.x = flat_heads(TensorRef(a.o)), .w = w.o_w, .dy = dy, .dx = flat_heads(g.d_o), .dw = dw.o_w, .db = dw.o_b});
  ops::attention_backward(cx, attention_options(),
                          {.q = a.q_eff, .k = a.k_eff, .v = a.v, .slopes = at.slopes, .o = a.o, .lse = a.lse,
                           .d_o = g.d_o, .dq = g.dq_eff, .dk = g.dk_eff, .dv = g.dv});
  if (is_coca(s.attention)) {
    ops::collinear_backward(cx, collinear_options(s),
                            {.rows = at.rows, .q = a.q, .t = a.k, .dq_eff = g.dq_eff, .dk_eff = g.dk_eff, .dq = g.dq, .dt = g.dk});
  } else if (s.attention == AttentionKind::kRope) {
    ops::rope_backward(cx, {.rows = at.rows, .dy = g.dq_eff, .dx = g.dq});
    ops::rope_backward(cx, {.rows = at.rows, .dy = g.dk_eff, .dx = g.dk});
  }
  if (s.qkv == Qkv::kFused) {
    ops::linear_backward(cx, {.x = a.ln1, .w = w.qkv_w, .dy = flat_fused(g.dqkv), .dx = g.dln1, .dw = dw.qkv_w, .db = dw.qkv_b});
  } else {
    const auto add = ops::Write::kAccumulate;
    ops::linear_backward(cx, {.x = a.ln1, .w = w.q_w, .dy = flat_heads(g.dq), .dx = g.dln1, .dw = dw.q_w, .db = dw.q_b});
    ops::linear_backward(cx, {.x = a.ln1, .w = w.k_w, .dy = flat_heads(g.dk), .dx = g.dln1, .dw = dw.k_w, .db = dw.k_b, .dx_write = add});
    ops::linear_backward(cx, {.x = a.ln1, .w = w.v_w, .dy = flat_heads(g.dv), .dx = g.dln1, .dw = dw.v_w, .db = dw.v_b, .dx_write = add});
  }
}

}  // namespace

void plan_layer_acts(const ModelSpec& s, int64_t B, int64_t N, const std::string& prefix, Keep keep, ArenaPlan& plan,
                     LayerActs& a) {
  const int64_t M = B * N;
  const auto add = [&](const char* name, const Dims& shape, MutTensorRef& slot) {
    plan.add(prefix + name, shape, DType::kF32, &slot);
  };
  add("ln1", {M, s.C}, a.ln1);
  if (s.qkv == Qkv::kFused) {
    add("qkv", {B, N, s.H, 3, s.D}, a.qkv);
  } else {
    add("q", {B, N, s.H, s.D}, a.q);
    add("k", {B, N, s.G, s.D}, a.k);
    add("v", {B, N, s.G, s.D}, a.v);
  }
  if (uses_rotary(s.attention)) {
    add("q_eff", {B, N, s.H, s.D}, a.q_eff);
    add("k_eff", {B, N, s.G, s.D}, a.k_eff);
  }
  add("o", {B, N, s.H, s.D}, a.o);
  if (s.residual == ResidualKind::kSequential) add("mid", {M, s.C}, a.mid);
  add("ln2", {M, s.C}, a.ln2);
  if (s.mlp == Mlp::kSwiGlu) add("gate", {M, s.F}, a.gate);
  add("up", {M, s.F}, a.up);
  add("act", {M, s.F}, a.act);
  if (keep == Keep::kForBackward) {
    add("ln1_stat", {M, 2}, a.ln1_stat);
    add("ln2_stat", {M, 2}, a.ln2_stat);
    add("lse", {B, s.H, N}, a.lse);
  }
}

void finish_layer_acts(const ModelSpec& s, LayerActs& a) {
  if (s.qkv == Qkv::kFused) {
    a.q = a.qkv.select(3, 0);
    a.k = a.qkv.select(3, 1);
    a.v = a.qkv.select(3, 2);
  }
  if (!uses_rotary(s.attention)) {
    a.q_eff = a.q;
    a.k_eff = a.k;
  }
}

void bind_forward_acts(const ModelSpec& s, int64_t B, int64_t N, Arena& arena, LayerActs& a, MutTensorRef& x,
                       MutTensorRef& y) {
  a = {};
  ArenaPlan plan;
  plan.add("x", {B * N, s.C}, DType::kF32, &x);
  plan.add("y", {B * N, s.C}, DType::kF32, &y);
  plan_layer_acts(s, B, N, "layer.", Keep::kForwardOnly, plan, a);
  plan.add("branch", {B * N, s.C}, DType::kF32, &a.branch);
  plan.add("branch2", {B * N, s.C}, DType::kF32, &a.branch2);
  arena.bind(plan);
  finish_layer_acts(s, a);
}

void layer_project(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, TensorRef x, LayerActs& a) {
  ops::norm_forward(cx, {.kind = s.norm, .eps = static_cast<float>(s.norm_eps), .x = x, .w = w.ln1_w, .b = w.ln1_b,
                         .y = a.ln1, .stat = a.ln1_stat});
  if (s.qkv == Qkv::kFused) {
    ops::linear_forward(cx, {.x = a.ln1, .w = w.qkv_w, .b = w.qkv_b, .y = flat_fused(a.qkv)});
  } else {
    ops::linear_forward(cx, {.x = a.ln1, .w = w.q_w, .b = w.q_b, .y = flat_heads(a.q)});
    ops::linear_forward(cx, {.x = a.ln1, .w = w.k_w, .b = w.k_b, .y = flat_heads(a.k)});
    ops::linear_forward(cx, {.x = a.ln1, .w = w.v_w, .b = w.v_b, .y = flat_heads(a.v)});
  }
}

void layer_attend(Context& cx, const ModelSpec& s, const Positions& at, LayerActs& a) {
  if (is_coca(s.attention)) {
    ops::collinear_forward(cx, collinear_options(s), {.rows = at.rows, .q = a.q, .t = a.k, .q_eff = a.q_eff, .k_eff = a.k_eff});
  } else if (s.attention == AttentionKind::kRope) {
    ops::rope_forward(cx, {.rows = at.rows, .x = a.q, .y = a.q_eff});
    ops::rope_forward(cx, {.rows = at.rows, .x = a.k, .y = a.k_eff});
  }
  ops::attention_forward(cx, attention_options(),
                         {.q = a.q_eff, .k = a.k_eff, .v = a.v, .slopes = at.slopes, .o = a.o, .lse = a.lse});
}

void layer_finish(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, TensorRef x, LayerActs& a,
                  MutTensorRef y) {
  const float eps = static_cast<float>(s.norm_eps);
  ops::linear_forward(cx, {.x = flat_heads(TensorRef(a.o)), .w = w.o_w, .b = w.o_b, .y = a.branch});
  if (s.residual == ResidualKind::kSequential) {
    ops::residual_forward(cx, {.a = x, .b = a.branch, .y = a.mid});
    ops::norm_forward(cx, {.kind = s.norm, .eps = eps, .x = a.mid, .w = w.ln2_w, .b = w.ln2_b, .y = a.ln2, .stat = a.ln2_stat});
    mlp_forward(cx, s, w, a, a.branch2);
    ops::residual_forward(cx, {.a = a.mid, .b = a.branch2, .y = y});
  } else {
    ops::norm_forward(cx, {.kind = s.norm, .eps = eps, .x = x, .w = w.ln2_w, .b = w.ln2_b, .y = a.ln2, .stat = a.ln2_stat});
    mlp_forward(cx, s, w, a, a.branch2);
    ops::residual_forward(cx, {.a = x, .b = a.branch, .c = a.branch2, .y = y});
  }
}

void layer_forward(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const Positions& at,
                   TensorRef x, LayerActs& a, MutTensorRef y) {
  layer_project(cx, s, w, x, a);
  layer_attend(cx, s, at, a);
  layer_finish(cx, s, w, x, a, y);
}

void plan_layer_act_grads(const ModelSpec& s, int64_t B, int64_t N, ArenaPlan& plan, LayerActGrads& g) {
  const int64_t M = B * N;
  const auto add = [&](const char* name, const Dims& shape, MutTensorRef& slot) {
    plan.add(std::string("grad.") + name, shape, DType::kF32, &slot);
  };
  add("dln1", {M, s.C}, g.dln1);
  add("dln2", {M, s.C}, g.dln2);
  if (s.qkv == Qkv::kFused) {
    add("dqkv", {B, N, s.H, 3, s.D}, g.dqkv);
  } else {
    add("dq", {B, N, s.H, s.D}, g.dq);
    add("dk", {B, N, s.G, s.D}, g.dk);
    add("dv", {B, N, s.G, s.D}, g.dv);
  }
  if (uses_rotary(s.attention)) {
    add("dq_eff", {B, N, s.H, s.D}, g.dq_eff);
    add("dk_eff", {B, N, s.G, s.D}, g.dk_eff);
  }
  add("d_o", {B, N, s.H, s.D}, g.d_o);
  if (s.mlp == Mlp::kSwiGlu) add("dgate", {M, s.F}, g.dgate);
  add("dup", {M, s.F}, g.dup);
  add("dact", {M, s.F}, g.dact);
}

void finish_layer_act_grads(const ModelSpec& s, LayerActGrads& g) {
  if (s.qkv == Qkv::kFused) {
    g.dq = g.dqkv.select(3, 0);
    g.dk = g.dqkv.select(3, 1);
    g.dv = g.dqkv.select(3, 2);
  }
  if (!uses_rotary(s.attention)) {
    g.dq_eff = g.dq;
    g.dk_eff = g.dk;
  }
}

void layer_backward(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const Positions& at,
                    TensorRef x, const LayerActs& a, LayerActGrads& g, LayerTensors<MutTensorRef>& dw,
                    MutTensorRef stream) {
  mlp_backward(cx, s, w, a, g, dw, stream);
  if (s.residual == ResidualKind::kSequential) {
    ops::norm_backward(cx, {.kind = s.norm, .x = a.mid, .w = w.ln2_w, .stat = a.ln2_stat, .dy = g.dln2, .dx = stream,
                            .dw = dw.ln2_w, .db = dw.ln2_b});
    attention_branch_backward(cx, s, w, at, a, g, dw, stream);
  } else {  // both branches saw the same incoming gradient: the norms may add to it only after both have read it
    attention_branch_backward(cx, s, w, at, a, g, dw, stream);
    ops::norm_backward(cx, {.kind = s.norm, .x = x, .w = w.ln2_w, .stat = a.ln2_stat, .dy = g.dln2, .dx = stream,
                            .dw = dw.ln2_w, .db = dw.ln2_b});
  }
  ops::norm_backward(cx, {.kind = s.norm, .x = x, .w = w.ln1_w, .stat = a.ln1_stat, .dy = g.dln1, .dx = stream,
                          .dw = dw.ln1_w, .db = dw.ln1_b});
}

}  // namespace coca::model

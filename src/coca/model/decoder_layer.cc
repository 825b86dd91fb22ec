// SPDX-License-Identifier: Apache-2.0
#include "coca/model/decoder_layer.h"

#include <tuple>

#include "coca/model/layer_attention.h"
#include "coca/model/ring_attention.h"
#include "coca/ops/activation.h"
#include "coca/ops/cast.h"
#include "coca/ops/collinear.h"
#include "coca/ops/heads.h"
#include "coca/ops/linear.h"
#include "coca/ops/norm.h"
#include "coca/ops/residual.h"
#include "coca/ops/rope.h"
#include "coca/ops/rope_angle.h"

namespace coca::model {

namespace {

// [B, N, H, D] as the [M, H D] rows a linear layer reads.
TensorRef flat_heads(TensorRef t) { return t.reshape({t.size(0) * t.size(1), t.size(2) * t.size(3)}); }
MutTensorRef flat_heads(MutTensorRef t) { return t.reshape({t.size(0) * t.size(1), t.size(2) * t.size(3)}); }

void norm(Context& cx, const ModelSpec& s, TensorRef x, TensorRef w, TensorRef b, MutTensorRef y, MutTensorRef stat) {
  ops::norm_forward(
      cx, {.kind = s.norm, .eps = static_cast<float>(s.norm_eps), .x = x, .w = w, .b = b, .y = y, .stat = stat});
}

// y = x W^T + b, and what an adapter adds.
void linear(Context& cx, const LoraTensors<TensorRef>& lora, const ops::LinearForward& p) {
  ops::linear_forward(cx, p);
  if (lora.a.empty()) return;
  ops::lora_forward(cx, {.x = p.x, .a = lora.a, .b = lora.b, .scale = lora.scale, .dropout = lora.dropout, .y = p.y});
}

void linear_back(Context& cx, const LoraTensors<TensorRef>& lora, const LoraTensors<MutTensorRef>& dlora,
                 const ops::LinearBackward& p) {
  ops::linear_backward(cx, p);
  if (lora.a.empty()) return;
  ops::lora_backward(cx, {.x = p.x,
                          .a = lora.a,
                          .b = lora.b,
                          .dy = p.dy,
                          .scale = lora.scale,
                          .dropout = lora.dropout,
                          .dx = p.dx,
                          .da = dlora.a,
                          .db = dlora.b});
}

void project(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, LayerActs& a) {
  if (s.qkv == Qkv::kFused) {
    linear(cx, w.lora.qkv, {.x = a.ln1, .w = w.qkv_w, .b = w.qkv_b, .y = flat_heads(a.qkv)});
  } else {
    const bool raw = s.head_norm != HeadNorm::kNone;
    linear(cx, w.lora.q, {.x = a.ln1, .w = w.q_w, .b = w.q_b, .y = flat_heads(raw ? a.q_raw : a.q)});
    linear(cx, w.lora.k, {.x = a.ln1, .w = w.k_w, .b = w.k_b, .y = flat_heads(raw ? a.k_raw : a.kt_in)});
    linear(cx, w.lora.v, {.x = a.ln1, .w = w.v_w, .b = w.v_b, .y = flat_heads(a.v_in)});
  }
}

// [B, N, H, X] as one row per head.
template <typename Ref>
Ref head_rows(Ref t) {
  return t.empty() ? t : t.reshape({t.size(0) * t.size(1) * t.size(2), t.size(3)});
}

void head_norms(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, LayerActs& a) {
  if (s.head_norm == HeadNorm::kNone) return;
  const auto one = [&](TensorRef x, TensorRef weight, MutTensorRef y, MutTensorRef stat) {
    ops::norm_forward(cx, {.kind = ops::NormKind::kRmsNorm,
                           .eps = static_cast<float>(s.norm_eps),
                           .x = head_rows(x),
                           .w = weight,
                           .y = head_rows(y),
                           .stat = head_rows(stat)});
  };
  one(a.q_raw, w.q_norm_w, a.q, a.q_stat);
  one(a.k_raw, w.k_norm_w, a.kt_in, a.k_stat);
}

// dq and dk turn from the gradients of what the norms gave into those of what they got.
void head_norms_backward(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const LayerActs& a,
                         LayerActGrads& g, LayerTensors<MutTensorRef>& dw) {
  if (s.head_norm == HeadNorm::kNone) return;
  const auto one = [&](TensorRef x, TensorRef weight, TensorRef stat, MutTensorRef grad, MutTensorRef dweight) {
    ops::norm_backward(cx, {.kind = ops::NormKind::kRmsNorm,
                            .x = head_rows(x),
                            .w = weight,
                            .stat = head_rows(stat),
                            .dy = head_rows(TensorRef(grad)),
                            .dx = head_rows(grad),
                            .dw = dweight,
                            .dx_write = ops::Write::kAssign});
  };
  one(a.q_raw, w.q_norm_w, a.q_stat, g.dq, dw.q_norm_w);
  one(a.k_raw, w.k_norm_w, a.k_stat, g.dkt_in, dw.k_norm_w);
}

void attention_output(Context& cx, const LayerTensors<TensorRef>& w, const LayerActs& a) {
  linear(cx, w.lora.o, {.x = flat_heads(TensorRef(a.o_out)), .w = w.o_w, .b = w.o_b, .y = a.branch});
}

void mlp_up(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, LayerActs& a) {
  linear(cx, w.lora.up, {.x = a.ln2, .w = w.up_w, .b = w.up_b, .y = a.up});
  if (s.mlp == Mlp::kSwiGlu) linear(cx, w.lora.gate, {.x = a.ln2, .w = w.gate_w, .b = w.gate_b, .y = a.gate});
}

void mlp_activate(Context& cx, const ModelSpec& s, LayerActs& a) {
  if (s.mlp == Mlp::kSwiGlu)
    ops::swiglu_forward(cx, {.gate = a.gate, .up = a.up, .y = a.act});
  else
    ops::gelu_forward(cx, {.kind = s.mlp == Mlp::kGelu ? ops::Gelu::kExact : ops::Gelu::kTanh, .x = a.up, .y = a.act});
}

// dln2 is written.
void mlp_backward(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const LayerActs& a,
                  LayerActGrads& g, LayerTensors<MutTensorRef>& dw, TensorRef dy) {
  linear_back(cx, w.lora.down, dw.lora.down,
              {.x = a.act, .w = w.down_w, .dy = dy, .dx = g.dact, .dw = dw.down_w, .db = dw.down_b});
  if (s.mlp == Mlp::kSwiGlu) {
    ops::swiglu_backward(cx, {.gate = a.gate, .up = a.up, .dy = g.dact, .dgate = g.dgate, .dup = g.dup});
    linear_back(cx, w.lora.gate, dw.lora.gate,
                {.x = a.ln2, .w = w.gate_w, .dy = g.dgate, .dx = g.dln2, .dw = dw.gate_w, .db = dw.gate_b});
    linear_back(cx, w.lora.up, dw.lora.up,
                {.x = a.ln2,
                 .w = w.up_w,
                 .dy = g.dup,
                 .dx = g.dln2,
                 .dw = dw.up_w,
                 .db = dw.up_b,
                 .dx_write = ops::Write::kAccumulate});
  } else {
    ops::gelu_backward(
        cx, {.kind = s.mlp == Mlp::kGelu ? ops::Gelu::kExact : ops::Gelu::kTanh, .x = a.up, .dy = g.dact, .dx = g.dup});
    linear_back(cx, w.lora.up, dw.lora.up,
                {.x = a.ln2, .w = w.up_w, .dy = g.dup, .dx = g.dln2, .dw = dw.up_w, .db = dw.up_b});
  }
}

// The gradient of both branches' outputs is the stream's, in the type of the activations.
TensorRef branch_gradient(Context& cx, const LayerActGrads& g, TensorRef stream) {
  if (g.dy.empty()) return stream;
  ops::cast(cx, {.x = stream, .y = g.dy});
  return g.dy;
}

// Of the parts that are trained without the others: head by head, as their rows lie apart in the whole.
void fused_part_gradients(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const LayerActs& a,
                          LayerActGrads& g, LayerTensors<MutTensorRef>& dw) {
  const MutTensorRef dqkv = flat_heads(g.dqkv);
  struct Part {
    MutTensorRef dw, db;
    int64_t first, rows;  // of a head
  };
  const int64_t D = s.D, K = s.key_width();
  for (const Part& part : {Part{dw.q_w, dw.q_b, 0, D}, Part{dw.k_w, dw.k_b, D, K}, Part{dw.v_w, dw.v_b, D + K, D}}) {
    if (part.dw.empty() && part.db.empty()) continue;
    for (int64_t h = 0; h < s.H; ++h) {
      const int64_t row = h * s.qkv_width() + part.first, n = part.rows;
      ops::linear_backward(cx, {.x = a.ln1,
                                .w = w.qkv_w.narrow(0, row, n),
                                .dy = dqkv.narrow(1, row, n),
                                .dx = {},
                                .dw = part.dw.empty() ? part.dw : part.dw.narrow(0, h * n, n),
                                .db = part.db.empty() ? part.db : part.db.narrow(0, h * n, n)});
    }
  }
}

// What the layer adds to the gradient of the angles. Keys are turned whatever the kind.
void angle_gradients(Context& cx, const ModelSpec& s, const AttentionInputs& inputs, const LayerActs& a,
                     const LayerActGrads& g) {
  if (g.dangle.empty() || inputs.scope.flat) return;
  const Positions& at = inputs.positions;
  const bool coca = is_coca(s.attention);
  ops::rope_angle_backward(cx, {.kind = coca ? ops::AngleOf::kQuery : ops::AngleOf::kRotated,
                                .collinear = collinear_options(s),
                                .rows = at.rows,
                                .x = coca ? a.q : a.q_eff,
                                .dy = g.dq_eff,
                                .dangle = g.dangle});
  ops::rope_angle_backward(cx, {.kind = ops::AngleOf::kRotated,
                                .collinear = {},
                                .rows = at.rows,
                                .x = a.k_eff,
                                .dy = g.dk_eff,
                                .dangle = g.dangle});
}

// From dy of the attention branch down to dln1 (written).
void attention_branch_backward(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w,
                               const AttentionInputs& inputs, RingAttention* ring, const LayerActs& a, LayerActGrads& g,
                               LayerTensors<MutTensorRef>& dw, TensorRef dy) {
  const Positions& at = inputs.positions;
  linear_back(
      cx, w.lora.o, dw.lora.o,
      {.x = flat_heads(TensorRef(a.o_out)), .w = w.o_w, .dy = dy, .dx = flat_heads(g.d_o), .dw = dw.o_w, .db = dw.o_b});
  const auto back = [&](Stage stage) { modify_backward(cx, s, w, inputs, stage, a, g, dw); };
  back(Stage::kOutput);
  back(Stage::kSoftmax);
  if (ring)
    ring->backward(cx, inputs, a, g);
  else
    attend_backward(cx, s, inputs, a, g);
  back(Stage::kQueries);
  angle_gradients(cx, s, inputs, a, g);
  if (is_coca(s.attention)) {
    const auto keys = [&](auto t) {
      return ring ? t.narrow(2, 0, 0) : t;
    };  // a ring has brought the keys' gradients to t
    ops::collinear_backward(cx, collinear_options(s),
                            {.rows = at.rows,
                             .key_rows = at.key_rows,
                             .q = a.q,
                             .t = keys(a.kt),
                             .dq_eff = g.dq_eff,
                             .dk_eff = keys(g.dk_eff),
                             .dq = g.dq,
                             .dt = keys(g.dkt)});
  } else if (uses_rotary(s.attention)) {
    ops::rope_backward(cx, {.rows = at.rows, .dy = g.dq_eff, .dx = g.dq});
    ops::rope_backward(cx, {.rows = at.keys(), .dy = g.dk_eff, .dx = g.dkt});
  }
  back(Stage::kDecay);
  back(Stage::kKeys);
  head_norms_backward(cx, s, w, a, g, dw);
  if (s.qkv == Qkv::kFused) {
    linear_back(cx, w.lora.qkv, dw.lora.qkv,
                {.x = a.ln1, .w = w.qkv_w, .dy = flat_heads(g.dqkv), .dx = g.dln1, .dw = dw.qkv_w, .db = dw.qkv_b});
    fused_part_gradients(cx, s, w, a, g, dw);
  } else {
    const auto add = ops::Write::kAccumulate;
    linear_back(cx, w.lora.q, dw.lora.q,
                {.x = a.ln1, .w = w.q_w, .dy = flat_heads(g.dq), .dx = g.dln1, .dw = dw.q_w, .db = dw.q_b});
    linear_back(cx, w.lora.k, dw.lora.k,
                {.x = a.ln1,
                 .w = w.k_w,
                 .dy = flat_heads(g.dkt_in),
                 .dx = g.dln1,
                 .dw = dw.k_w,
                 .db = dw.k_b,
                 .dx_write = add});
    linear_back(
        cx, w.lora.v, dw.lora.v,
        {.x = a.ln1, .w = w.v_w, .dy = flat_heads(g.dv_in), .dx = g.dln1, .dw = dw.v_w, .db = dw.v_b, .dx_write = add});
  }
  project_modifiers_backward(cx, s, w, a, g, dw);
  global_project_backward(cx, s, w, a, g, dw);
}

}  // namespace

void layer_project(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, TensorRef x, LayerActs& a) {
  norm(cx, s, x, w.ln1_w, w.ln1_b, a.ln1, a.ln1_stat);
  project(cx, s, w, a);
  head_norms(cx, s, w, a);
  project_modifiers(cx, s, w, a);
}

void layer_finish(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, TensorRef x, LayerActs& a,
                  MutTensorRef y) {
  modify(cx, s, w, {}, Stage::kOutput, a);
  attention_output(cx, w, a);
  const bool sequential = s.residual == ResidualKind::kSequential;
  if (sequential) ops::residual_forward(cx, {.a = x, .b = a.branch, .y = a.mid});
  norm(cx, s, sequential ? TensorRef(a.mid) : x, w.ln2_w, w.ln2_b, a.ln2, a.ln2_stat);
  mlp_up(cx, s, w, a);
  mlp_activate(cx, s, a);
  linear(cx, w.lora.down, {.x = a.act, .w = w.down_w, .b = w.down_b, .y = a.branch2});
  if (sequential)
    ops::residual_forward(cx, {.a = a.mid, .b = a.branch2, .y = y});
  else
    ops::residual_forward(cx, {.a = x, .b = a.branch, .c = a.branch2, .y = y});
}

void layer_forward(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const AttentionInputs& at,
                   KeySource& keys, TensorRef x, LayerActs& a, MutTensorRef y) {
  keys.place(s, a);
  layer_project(cx, s, w, x, a);
  keys.attend(cx, s, w, at, a);
  layer_finish(cx, s, w, x, a, y);
}

void layer_remake(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const AttentionInputs& at,
                  KeySource& keys, TensorRef x, Recompute policy, LayerActs& a) {
  if (policy == Recompute::kNone) return;
  const bool all = policy == Recompute::kLayer, sequential = s.residual == ResidualKind::kSequential;
  if (all) {
    layer_project(cx, s, w, x, a);
    keys.attend(cx, s, w, at, a);
  } else {
    norm(cx, s, x, w.ln1_w, w.ln1_b, a.ln1, a.ln1_stat);
    head_norms(cx, s, w, a);
    transform(cx, s, w, at, a);
    global_transform(cx, s, at.positions, a);
  }
  modify(cx, s, w, {}, Stage::kOutput, a);
  if (all && sequential) {  // the branches themselves are not read backward
    attention_output(cx, w, a);
    ops::residual_forward(cx, {.a = x, .b = a.branch, .y = a.mid});
  }
  norm(cx, s, sequential ? TensorRef(a.mid) : x, w.ln2_w, w.ln2_b, a.ln2, a.ln2_stat);
  if (all) mlp_up(cx, s, w, a);
  mlp_activate(cx, s, a);
}

void layer_backward(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const AttentionInputs& at,
                    RingAttention* ring, TensorRef x, const LayerActs& a, LayerActGrads& g,
                    LayerTensors<MutTensorRef>& dw, MutTensorRef stream) {
  const TensorRef dy = branch_gradient(cx, g, stream);
  mlp_backward(cx, s, w, a, g, dw, dy);
  if (s.residual == ResidualKind::kSequential) {
    ops::norm_backward(cx, {.kind = s.norm,
                            .x = a.mid,
                            .w = w.ln2_w,
                            .stat = a.ln2_stat,
                            .dy = g.dln2,
                            .dx = stream,
                            .dw = dw.ln2_w,
                            .db = dw.ln2_b});
    attention_branch_backward(cx, s, w, at, ring, a, g, dw, branch_gradient(cx, g, stream));
  } else {  // both branches saw the same incoming gradient: the norms may add to it only after both have read it
    attention_branch_backward(cx, s, w, at, ring, a, g, dw, dy);
    ops::norm_backward(cx, {.kind = s.norm,
                            .x = x,
                            .w = w.ln2_w,
                            .stat = a.ln2_stat,
                            .dy = g.dln2,
                            .dx = stream,
                            .dw = dw.ln2_w,
                            .db = dw.ln2_b});
  }
  ops::norm_backward(cx, {.kind = s.norm,
                          .x = x,
                          .w = w.ln1_w,
                          .stat = a.ln1_stat,
                          .dy = g.dln1,
                          .dx = stream,
                          .dw = dw.ln1_w,
                          .db = dw.ln1_b});
}

}  // namespace coca::model

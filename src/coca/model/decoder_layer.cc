// SPDX-License-Identifier: Apache-2.0
#include "coca/model/decoder_layer.h"

#include <cstring>
#include <tuple>
#include <utility>

#include "coca/base/parallel.h"
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
  ops::norm_forward(cx, {.kind = s.norm, .eps = static_cast<float>(s.norm_eps), .x = x, .w = w, .b = b, .y = y, .stat = stat});
}

// y = x W^T + b, and what an adapter adds.
void linear(Context& cx, const LoraTensors<TensorRef>& lora, const ops::LinearForward& p) {
  ops::linear_forward(cx, p);
  if (lora.a.empty()) return;
  ops::lora_forward(cx, {.x = p.x, .a = lora.a, .b = lora.b, .scale = lora.scale, .dropout = lora.dropout, .y = p.y});
}

void linear_back(Context& cx, const LoraTensors<TensorRef>& lora, const LoraTensors<MutTensorRef>& dlora, const ops::LinearBackward& p) {
  ops::linear_backward(cx, p);
  if (lora.a.empty()) return;
  ops::lora_backward(cx, {.x = p.x, .a = lora.a, .b = lora.b, .dy = p.dy, .scale = lora.scale, .dropout = lora.dropout, .dx = p.dx,
                          .da = dlora.a, .db = dlora.b});
}

void project(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, LayerActs& a) {
  if (s.qkv == Qkv::kFused) {
    linear(cx, w.lora.qkv, {.x = a.ln1, .w = w.qkv_w, .b = w.qkv_b, .y = flat_heads(a.qkv)});
  } else {
    const bool raw = s.head_norm != HeadNorm::kNone;
    linear(cx, w.lora.q, {.x = a.ln1, .w = w.q_w, .b = w.q_b, .y = flat_heads(raw ? a.q_raw : a.q)});
    linear(cx, w.lora.k, {.x = a.ln1, .w = w.k_w, .b = w.k_b, .y = flat_heads(raw ? a.k_raw : a.k)});
    linear(cx, w.lora.v, {.x = a.ln1, .w = w.v_w, .b = w.v_b, .y = flat_heads(a.v)});
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
    ops::norm_forward(cx, {.kind = ops::NormKind::kRmsNorm, .eps = static_cast<float>(s.norm_eps), .x = head_rows(x), .w = weight,
                           .y = head_rows(y), .stat = head_rows(stat)});
  };
  one(a.q_raw, w.q_norm_w, a.q, a.q_stat);
  one(a.k_raw, w.k_norm_w, a.k, a.k_stat);
}

// dq and dk turn from the gradients of what the norms gave into those of what they got.
void head_norms_backward(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const LayerActs& a,
                         LayerActGrads& g, LayerTensors<MutTensorRef>& dw) {
  if (s.head_norm == HeadNorm::kNone) return;
  const auto one = [&](TensorRef x, TensorRef weight, TensorRef stat, MutTensorRef grad, MutTensorRef dweight) {
    ops::norm_backward(cx, {.kind = ops::NormKind::kRmsNorm, .x = head_rows(x), .w = weight, .stat = head_rows(stat),
                            .dy = head_rows(TensorRef(grad)), .dx = head_rows(grad), .dw = dweight, .dx_write = ops::Write::kAssign});
  };
  one(a.q_raw, w.q_norm_w, a.q_stat, g.dq, dw.q_norm_w);
  one(a.k_raw, w.k_norm_w, a.k_stat, g.dk, dw.k_norm_w);
}

}  // namespace

// q and k to what attention sees.
void layer_position(Context& cx, const ModelSpec& s, const Positions& at, LayerActs& a) {
  if (is_coca(s.attention)) {
    ops::collinear_forward(cx, collinear_options(s), {.rows = at.rows, .key_rows = at.key_rows, .q = a.q, .t = a.k, .q_eff = a.q_eff, .k_eff = a.k_eff});
  } else if (uses_rotary(s.attention)) {
    ops::rope_forward(cx, {.rows = at.rows, .x = a.q, .y = a.q_eff});
    ops::rope_forward(cx, {.rows = at.keys(), .x = a.k, .y = a.k_eff});
  }
  if (!at.turn.cos.empty()) ops::rope_forward(cx, {.rows = at.turn, .x = a.q_eff, .y = a.q_eff});
}

namespace {

// The same for keys beyond the window. k_far [B, n, G, D] is written: the first n tokens here.
void position_far(Context& cx, const ModelSpec& s, const Positions& at, const LayerActs& a, MutTensorRef k_far) {
  layer_far_queries(cx, s, at, a);
  const int64_t n = k_far.empty() ? 0 : k_far.size(1);
  if (n == 0) return;
  const ops::RopeRows key_rows = at.far.key_rows.narrow(0, n);
  if (!is_coca(s.attention)) return ops::rope_forward(cx, {.rows = key_rows, .x = a.k.narrow(1, 0, n), .y = k_far});
  const ops::CollinearOptions options = collinear_options(s);
  const MutTensorRef tbar = cx.scratch_tensor({a.k.size(0), n, s.G, s.D / 2}, DType::kF32, ScratchUser::kFoldedT);
  ops::collinear_fold(cx, options, {.R = s.R, .t = a.k.narrow(1, 0, n), .tbar = tbar});
  ops::collinear_key(cx, options, {.rows = key_rows, .tbar = tbar, .k_eff = k_far});
}

// Keys that every query sees: of all that stand as such, the first.
ops::FarKeys far_keys(const Positions& at, TensorRef q, TensorRef k) {
  if (at.far.tokens == 0) return {};
  return {.q = q, .k = k.narrow(1, 0, std::min(at.far.tokens, k.size(1))), .v = {}, .most_distance = at.far.most_distance,
          .most_position = at.far.most_position};
}

// Those of the other keys in k_far [B, S, G, D] that score highest join the softmax.
void attend_middle(Context& cx, const ModelSpec& s, const Positions& at, int64_t start, TensorRef k_far, TensorRef v, LayerActs& a) {
  ops::top_keys_find(cx, middle_options(s, at, start),
                     {.q = a.q_far, .k = k_far, .slopes = at.slopes, .scores = a.top_scores, .keys = a.top_keys});
  ops::top_keys_add(cx, {.scores = a.top_scores, .keys = a.top_keys, .v = v, .o = a.o, .lse = a.lse});
}

void attention_output(Context& cx, const LayerTensors<TensorRef>& w, const LayerActs& a) {
  linear(cx, w.lora.o, {.x = flat_heads(TensorRef(a.o)), .w = w.o_w, .b = w.o_b, .y = a.branch});
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
  linear_back(cx, w.lora.down, dw.lora.down, {.x = a.act, .w = w.down_w, .dy = dy, .dx = g.dact, .dw = dw.down_w, .db = dw.down_b});
  if (s.mlp == Mlp::kSwiGlu) {
    ops::swiglu_backward(cx, {.gate = a.gate, .up = a.up, .dy = g.dact, .dgate = g.dgate, .dup = g.dup});
    linear_back(cx, w.lora.gate, dw.lora.gate, {.x = a.ln2, .w = w.gate_w, .dy = g.dgate, .dx = g.dln2, .dw = dw.gate_w, .db = dw.gate_b});
    linear_back(cx, w.lora.up, dw.lora.up, {.x = a.ln2, .w = w.up_w, .dy = g.dup, .dx = g.dln2, .dw = dw.up_w, .db = dw.up_b,
                              .dx_write = ops::Write::kAccumulate});
  } else {
    ops::gelu_backward(cx, {.kind = s.mlp == Mlp::kGelu ? ops::Gelu::kExact : ops::Gelu::kTanh, .x = a.up,
                            .dy = g.dact, .dx = g.dup});
    linear_back(cx, w.lora.up, dw.lora.up, {.x = a.ln2, .w = w.up_w, .dy = g.dup, .dx = g.dln2, .dw = dw.up_w, .db = dw.up_b});
  }
}

// The gradient of both branches' outputs is the stream's, in the type of the activations.
TensorRef branch_gradient(Context& cx, const LayerActGrads& g, TensorRef stream) {
  if (g.dy.empty()) return stream;
  ops::cast(cx, {.x = stream, .y = g.dy});
  return g.dy;
}

// Of the parts that are trained without the others: head by head, as their rows lie apart in the whole.
void fused_part_gradients(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const LayerActs& a, LayerActGrads& g,
                          LayerTensors<MutTensorRef>& dw) {
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
      ops::linear_backward(cx, {.x = a.ln1, .w = w.qkv_w.narrow(0, row, n), .dy = dqkv.narrow(1, row, n), .dx = {},
                                .dw = part.dw.empty() ? part.dw : part.dw.narrow(0, h * n, n),
                                .db = part.db.empty() ? part.db : part.db.narrow(0, h * n, n)});
    }
  }
}

// What the layer adds to the gradient of the angles. Keys are turned whatever the kind; so is strict CoCA's query.
void angle_gradients(Context& cx, const ModelSpec& s, const Positions& at, const LayerActs& a, const LayerActGrads& g) {
  if (at.dangle.empty()) return;
  using ops::AngleOf;
  const ops::Collinear form = collinear_options(s).kind;
  const AngleOf query = !is_coca(s.attention) || form == ops::Collinear::kStrict ? AngleOf::kRotated
                        : form == ops::Collinear::kTied                          ? AngleOf::kTied
                                                                                 : AngleOf::kSlack;
  ops::rope_angle_backward(cx, {.kind = query, .rows = at.rows, .x = query == AngleOf::kRotated ? a.q_eff : a.q, .dy = g.dq_eff, .dangle = at.dangle});
  ops::rope_angle_backward(cx, {.kind = AngleOf::kRotated, .rows = at.rows, .x = a.k_eff, .dy = g.dk_eff, .dangle = at.dangle});
}

// From dy of the attention branch down to dln1 (written).
void attention_branch_backward(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w,
                               const Positions& at, const LayerActs& a, LayerActGrads& g,
                               LayerTensors<MutTensorRef>& dw, TensorRef dy) {
  linear_back(cx, w.lora.o, dw.lora.o, {.x = flat_heads(TensorRef(a.o)), .w = w.o_w, .dy = dy, .dx = flat_heads(g.d_o), .dw = dw.o_w, .db = dw.o_b});
  if (at.ring)
    at.ring->backward(cx, at, a, g);
  else
    attend_backward(cx, s, at, a, g);
  angle_gradients(cx, s, at, a, g);
  if (is_coca(s.attention)) {
    const auto keys = [&](auto t) { return at.ring ? t.narrow(2, 0, 0) : t; };  // a ring has brought the keys' gradients to t
    ops::collinear_backward(cx, collinear_options(s), {.rows = at.rows, .key_rows = at.key_rows, .q = a.q, .t = keys(a.k), .dq_eff = g.dq_eff,
                                                       .dk_eff = keys(g.dk_eff), .dq = g.dq, .dt = keys(g.dk)});
  } else if (uses_rotary(s.attention)) {
    ops::rope_backward(cx, {.rows = at.rows, .dy = g.dq_eff, .dx = g.dq});
    ops::rope_backward(cx, {.rows = at.keys(), .dy = g.dk_eff, .dx = g.dk});
  }
  head_norms_backward(cx, s, w, a, g, dw);
  if (s.qkv == Qkv::kFused) {
    linear_back(cx, w.lora.qkv, dw.lora.qkv, {.x = a.ln1, .w = w.qkv_w, .dy = flat_heads(g.dqkv), .dx = g.dln1, .dw = dw.qkv_w, .db = dw.qkv_b});
    fused_part_gradients(cx, s, w, a, g, dw);
  } else {
    const auto add = ops::Write::kAccumulate;
    linear_back(cx, w.lora.q, dw.lora.q, {.x = a.ln1, .w = w.q_w, .dy = flat_heads(g.dq), .dx = g.dln1, .dw = dw.q_w, .db = dw.q_b});
    linear_back(cx, w.lora.k, dw.lora.k, {.x = a.ln1, .w = w.k_w, .dy = flat_heads(g.dk), .dx = g.dln1, .dw = dw.k_w, .db = dw.k_b, .dx_write = add});
    linear_back(cx, w.lora.v, dw.lora.v, {.x = a.ln1, .w = w.v_w, .dy = flat_heads(g.dv), .dx = g.dln1, .dw = dw.v_w, .db = dw.v_b, .dx_write = add});
  }
  global_project_backward(cx, s, w, a, g, dw);
}

}  // namespace

Positions Positions::narrow(int64_t first, int64_t count) const {
  Positions part = *this;
  for (ops::RopeRows* r : {&part.rows, &part.key_rows, &part.turn, &part.far.rows, &part.far.key_rows})
    *r = r->narrow(first, count);
  return part;
}

Positions Positions::in_layer(const ModelSpec& spec, size_t layer) const {
  Positions at = *this;
  at.window = spec.window_of(layer);
  at.dilation = spec.dilation_of(layer);
  at.far.top = spec.pattern.top_keys_of(static_cast<int64_t>(layer));
  return at;
}

void layer_far_queries(Context& cx, const ModelSpec& s, const Positions& at, const LayerActs& a) {
  if (!transforms_keys(s.attention)) return;  // q_far is q
  if (is_coca(s.attention))
    ops::collinear_query(cx, collinear_options(s), {.rows = at.far.rows, .q = a.q, .q_eff = a.q_far});
  else
    ops::rope_forward(cx, {.rows = at.far.rows, .x = a.q, .y = a.q_far});
}

ops::TopKeysOptions middle_options(const ModelSpec& s, const Positions& at, int64_t query_start) {
  return {.count = s.pattern.middle_top_k, .first = s.pattern.sinks, .hidden = s.pattern.window, .query_start = query_start,
          .most_distance = at.far.most_distance};
}

void plan_layer_acts(const ModelSpec& s, const ActShape& shape, const std::string& prefix, Acts which, ArenaPlan& plan,
                     LayerActs& a) {
  const auto [B, N, type] = shape;
  const int64_t M = B * N;
  const bool forward_only = which == Acts::kForward || which == Acts::kChunk;
  const auto kept = [&, type = type](const char* name, const Dims& dims, MutTensorRef& slot) {
    if (which != Acts::kRemade) plan.add(prefix + name, dims, type, &slot);
  };
  const auto remade = [&, type = type](const char* name, const Dims& dims, MutTensorRef& slot) {
    if (which != Acts::kKept) plan.add(prefix + name, dims, type, &slot);
  };
  const auto kept_f32 = [&](const char* name, const Dims& dims, MutTensorRef& slot) {
    if (which != Acts::kRemade) plan.add(prefix + name, dims, DType::kF32, &slot);
  };
  remade("ln1", {M, s.C}, a.ln1);
  if (s.qkv == Qkv::kFused) {
    kept("qkv", {B, N, s.H, s.qkv_width()}, a.qkv);
  } else {
    if (s.head_norm == HeadNorm::kNone) {
      kept("q", {B, N, s.H, s.D}, a.q);
      kept("k", {B, N, s.G, s.key_width()}, a.k);
    } else {
      kept("q_raw", {B, N, s.H, s.D}, a.q_raw);
      kept("k_raw", {B, N, s.G, s.D}, a.k_raw);
      remade("q", {B, N, s.H, s.D}, a.q);
      remade("k", {B, N, s.G, s.D}, a.k);
    }
    if (which != Acts::kChunk) kept("v", {B, N, s.G, s.D}, a.v);
  }
  if (transforms_keys(s.attention)) {
    remade("q_eff", {B, N, s.H, s.D}, a.q_eff);
    if (which != Acts::kChunk) remade("k_eff", {B, N, s.G, s.D}, a.k_eff);
  }
  if (s.pattern.far() && transforms_keys(s.attention)) {
    remade("q_far", {B, N, s.H, s.D}, a.q_far);
    if (which != Acts::kChunk) remade("k_far", {B, N, s.G, s.D}, a.k_far);
  }
  plan_global_acts(s, B, N, kept, remade, a);
  kept("o", {B, N, s.H, s.D}, a.o);
  if (s.pattern.looks_back()) {  // evaluation only
    kept_f32("lse", {B, s.H, N}, a.lse);
    kept_f32("top_scores", {B, N, s.H, s.pattern.middle_top_k}, a.top_scores);
    plan.add(prefix + "top_keys", {B, N, s.H, s.pattern.middle_top_k}, DType::kI32, &a.top_keys);
  }
  if (s.residual == ResidualKind::kSequential) kept_f32("mid", {M, s.C}, a.mid);
  remade("ln2", {M, s.C}, a.ln2);
  if (s.mlp == Mlp::kSwiGlu) kept("gate", {M, s.F}, a.gate);
  kept("up", {M, s.F}, a.up);
  remade("act", {M, s.F}, a.act);
  if (!forward_only) {
    kept_f32("ln1_stat", {M, 2}, a.ln1_stat);
    kept_f32("ln2_stat", {M, 2}, a.ln2_stat);
    kept_f32("lse", {B, s.H, N}, a.lse);
    if (s.head_norm != HeadNorm::kNone) {
      kept_f32("q_stat", {B, N, s.H, 2}, a.q_stat);
      kept_f32("k_stat", {B, N, s.G, 2}, a.k_stat);
    }
  }
}

void finish_layer_acts(const ModelSpec& s, LayerActs& a) {
  if (s.qkv == Qkv::kFused) {
    std::tie(a.q, a.k, a.v) = split_qkv(s, a.qkv);
  }
  if (!transforms_keys(s.attention)) {
    a.q_eff = a.q;
    a.k_eff = a.k;
    if (s.pattern.far()) {
      a.q_far = a.q;
      a.k_far = a.k;
    }
  }
  finish_global_acts(s, a);
}

namespace {

constexpr MutTensorRef LayerActs::* kLayerActs[] = {
    &LayerActs::q_raw, &LayerActs::k_raw,    &LayerActs::q_stat, &LayerActs::k_stat,
    &LayerActs::ln1,   &LayerActs::ln1_stat, &LayerActs::qkv,  &LayerActs::q,   &LayerActs::k,   &LayerActs::v,
    &LayerActs::q_eff, &LayerActs::k_eff,    &LayerActs::q_far, &LayerActs::k_far, &LayerActs::o,    &LayerActs::lse, &LayerActs::mid, &LayerActs::ln2,
    &LayerActs::top_scores, &LayerActs::top_keys,
    &LayerActs::ln2_stat, &LayerActs::gate,  &LayerActs::up,   &LayerActs::act, &LayerActs::branch, &LayerActs::branch2};

}  // namespace

void fill_layer_acts(const LayerActs& shared, LayerActs& a) {
  for (const auto member : kLayerActs)
    if ((a.*member).empty()) a.*member = shared.*member;
  fill_global_acts(shared, a);
}

LayerActs resize_layer_acts(const ModelSpec& s, const LayerActs& planned, int64_t B, int64_t N) {
  LayerActs a = planned;
  for (const auto member : kLayerActs) {
    MutTensorRef& t = a.*member;
    if (t.empty()) continue;
    Dims shape = t.shape;
    shape[0] = t.rank() == 2 ? B * N : B;
    if (t.rank() > 2) shape[member == &LayerActs::lse ? 2 : 1] = N;
    t = MutTensorRef(t.data, t.dtype, shape);
  }
  resize_global_acts(s, B, N, a);
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

void layer_project(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, TensorRef x, LayerActs& a) {
  norm(cx, s, x, w.ln1_w, w.ln1_b, a.ln1, a.ln1_stat);
  project(cx, s, w, a);
  head_norms(cx, s, w, a);
}

namespace {

void project_global(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, LayerActs& a) {
  global_project(cx, s, w, a.q.size(0), a.q.size(1), global_rows(s, a.q.size(1)), a);
}

}  // namespace

void layer_attend(Context& cx, const ModelSpec& s, const Positions& at, LayerActs& a) {
  layer_position(cx, s, at, a);
  if (at.ring) return at.ring->forward(cx, at, a);
  global_position(cx, s, at, a);
  ops::FarKeys far;
  const int64_t far_count = s.pattern.far_keys(a.k.size(1));
  if (far_count > 0) {
    const MutTensorRef k_far = a.k_far.narrow(1, 0, far_count);
    if (transforms_keys(s.attention)) position_far(cx, s, at, a, k_far);
    far = far_keys(at, a.q_far, k_far);
  }
  attend_forward(cx, s, at, 0, a.k_eff, a.v, far, a);
  if (at.far.top > 0) attend_middle(cx, s, at, 0, a.k_far, a.v, a);
}

void layer_finish(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, TensorRef x, LayerActs& a,
                  MutTensorRef y) {
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

void layer_forward(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const Positions& at,
                   TensorRef x, LayerActs& a, MutTensorRef y) {
  layer_project(cx, s, w, x, a);
  project_global(cx, s, w, a);
  layer_attend(cx, s, at, a);
  layer_finish(cx, s, w, x, a, y);
}

void layer_forward_chunk(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const Positions& at,
                         int64_t start, const LayerKeys& keys, LayerActs& a, MutTensorRef x) {
  const int64_t n = a.q.size(1);
  const MutTensorRef k_eff = keys.k_eff.narrow(1, start, n), v = keys.v.narrow(1, start, n);
  if (transforms_keys(s.attention)) a.k_eff = k_eff;
  if (s.qkv == Qkv::kSeparate) a.v = v;
  layer_project(cx, s, w, x, a);
  layer_position(cx, s, at, a);
  if (!transforms_keys(s.attention)) ops::copy_heads(cx, a.k, k_eff);
  if (s.qkv == Qkv::kFused) ops::copy_heads(cx, a.v, v);
  if (start == 0) {
    project_global(cx, s, w, a);
    global_position(cx, s, at, a);
  }
  ops::FarKeys far;
  const bool own = transforms_keys(s.attention);
  const MutTensorRef all = own ? keys.k_far : keys.k_eff;
  const int64_t before = s.pattern.far_keys(start), seen = s.pattern.far_keys(start + n);
  if (seen > 0) {
    if (own) position_far(cx, s, at, a, seen > before ? all.narrow(1, before, seen - before) : MutTensorRef());
    far = far_keys(at, a.q_far, all.narrow(1, 0, seen));
  }
  attend_forward(cx, s, at, start, keys.k_eff.narrow(1, 0, start + n), keys.v.narrow(1, 0, start + n), far, a);
  if (at.far.top > 0) attend_middle(cx, s, at, start, all.narrow(1, 0, seen), keys.v.narrow(1, 0, start + n), a);
  layer_finish(cx, s, w, x, a, x);
}

void layer_remake(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const Positions& at, TensorRef x,
                  Recompute policy, LayerActs& a) {
  if (policy == Recompute::kNone) return;
  const bool all = policy == Recompute::kLayer, sequential = s.residual == ResidualKind::kSequential;
  if (all) {
    layer_project(cx, s, w, x, a);
    project_global(cx, s, w, a);
    layer_attend(cx, s, at, a);
  } else {
    norm(cx, s, x, w.ln1_w, w.ln1_b, a.ln1, a.ln1_stat);
    head_norms(cx, s, w, a);
    layer_position(cx, s, at, a);
    global_position(cx, s, at, a);
  }
  if (all && sequential) {  // the branches themselves are not read backward
    attention_output(cx, w, a);
    ops::residual_forward(cx, {.a = x, .b = a.branch, .y = a.mid});
  }
  norm(cx, s, sequential ? TensorRef(a.mid) : x, w.ln2_w, w.ln2_b, a.ln2, a.ln2_stat);
  if (all) mlp_up(cx, s, w, a);
  mlp_activate(cx, s, a);
}

void plan_layer_act_grads(const ModelSpec& s, const ActShape& shape, ArenaPlan& plan, LayerActGrads& g) {
  const auto [B, N, type] = shape;
  const int64_t M = B * N;
  const auto add = [&, type = type](const char* name, const Dims& dims, MutTensorRef& slot) {
    plan.add(std::string("grad.") + name, dims, type, &slot);
  };
  if (type != DType::kF32) add("dy", {M, s.C}, g.dy);
  plan.add("grad.dln1", {M, s.C}, DType::kF32, &g.dln1);
  plan.add("grad.dln2", {M, s.C}, DType::kF32, &g.dln2);
  if (s.qkv == Qkv::kFused) {
    add("dqkv", {B, N, s.H, s.qkv_width()}, g.dqkv);
  } else {
    add("dq", {B, N, s.H, s.D}, g.dq);
    add("dk", {B, N, s.G, s.key_width()}, g.dk);
    add("dv", {B, N, s.G, s.D}, g.dv);
  }
  if (transforms_keys(s.attention)) {
    add("dq_eff", {B, N, s.H, s.D}, g.dq_eff);
    add("dk_eff", {B, N, s.G, s.D}, g.dk_eff);
  }
  plan_global_grads(s, B, N, add, g);
  add("d_o", {B, N, s.H, s.D}, g.d_o);
  if (s.mlp == Mlp::kSwiGlu) add("dgate", {M, s.F}, g.dgate);
  add("dup", {M, s.F}, g.dup);
  add("dact", {M, s.F}, g.dact);
}

void finish_layer_act_grads(const ModelSpec& s, LayerActGrads& g) {
  if (s.qkv == Qkv::kFused) {
    std::tie(g.dq, g.dk, g.dv) = split_qkv(s, g.dqkv);
  }
  if (!transforms_keys(s.attention)) {
    g.dq_eff = g.dq;
    g.dk_eff = g.dk;
  }
  finish_global_grads(s, g);
}

void layer_backward(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const Positions& at,
                    TensorRef x, const LayerActs& a, LayerActGrads& g, LayerTensors<MutTensorRef>& dw,
                    MutTensorRef stream) {
  const TensorRef dy = branch_gradient(cx, g, stream);
  mlp_backward(cx, s, w, a, g, dw, dy);
  if (s.residual == ResidualKind::kSequential) {
    ops::norm_backward(cx, {.kind = s.norm, .x = a.mid, .w = w.ln2_w, .stat = a.ln2_stat, .dy = g.dln2, .dx = stream,
                            .dw = dw.ln2_w, .db = dw.ln2_b});
    attention_branch_backward(cx, s, w, at, a, g, dw, branch_gradient(cx, g, stream));
  } else {  // both branches saw the same incoming gradient: the norms may add to it only after both have read it
    attention_branch_backward(cx, s, w, at, a, g, dw, dy);
    ops::norm_backward(cx, {.kind = s.norm, .x = x, .w = w.ln2_w, .stat = a.ln2_stat, .dy = g.dln2, .dx = stream,
                            .dw = dw.ln2_w, .db = dw.ln2_b});
  }
  ops::norm_backward(cx, {.kind = s.norm, .x = x, .w = w.ln1_w, .stat = a.ln1_stat, .dy = g.dln1, .dx = stream,
                          .dw = dw.ln1_w, .db = dw.ln1_b});
}

}  // namespace coca::model

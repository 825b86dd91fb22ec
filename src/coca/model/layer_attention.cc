// SPDX-License-Identifier: Apache-2.0
#include "coca/model/layer_attention.h"

#include <algorithm>
#include <tuple>

#include "coca/ops/collinear.h"
#include "coca/ops/dilated_attention.h"
#include "coca/ops/heads.h"
#include "coca/ops/linear.h"
#include "coca/ops/rope.h"
#include "coca/tensor/transfer.h"

namespace coca::model {

namespace {

template <typename Ref>
Ref from_row(Ref t, int64_t first) {
  return t.narrow(1, first, t.size(1) - first);
}
template <typename Ref>
Ref flat_row(Ref t, int64_t b) {  // sequence b of [B, n, ...] as [n, columns]
  const Ref row = t.narrow(0, b, 1);
  return row.reshape({t.size(1), t.numel() / (t.size(0) * t.size(1))});
}

ops::AttentionOptions local_options(const ModelSpec& s, const AttentionScope& at, int64_t query_start) {
  const bool both = s.direction == Direction::kBidirectional;
  const ops::Mask window = both ? ops::Mask::kSymmetricWindow : ops::Mask::kSlidingWindow,
                  all = both ? ops::Mask::kNone : ops::Mask::kCausal;
  return {
      .scale = s.score_scale(), .mask = at.window > 0 ? window : all, .window = at.window, .query_start = query_start};
}
ops::AttentionOptions global_options(const ModelSpec& s) {
  return {.scale = s.score_scale(),
          .mask = s.direction == Direction::kBidirectional ? ops::Mask::kNone : ops::Mask::kCausal};
}

// The rows behind the global tokens, of which `globals` are in this call. With a window these see the global tokens as
// far keys, with the ordinary vectors, and the window begins behind them.
struct Local {
  int64_t first;
  bool far;
  TensorRef q, k, starts;

  Local(const ModelSpec& s, const AttentionScope& at, int64_t globals, TensorRef q_eff, TensorRef k_eff)
      : first(globals),
        far(s.global_tokens > 0 && at.window > 0),
        q(from_row(q_eff, globals)),
        starts(at.document_start) {
    if (!far) return;
    k = k_eff.narrow(1, 0, s.global_tokens);
    starts = {at.global_start.data, DType::kI32, {q.size(0), q.size(1)}, {0, 1}, at.global_start.device};
  }
  ops::FarKeys keys(const ops::FarKeys& otherwise) const {
    return far ? ops::FarKeys{.q = q, .k = k, .v = {}, .range = ops::FarRange::kAll} : otherwise;
  }
};

// One side alone of the pair that collinear.h takes: the other has no heads (of this width; 0: that of t).
template <typename Ref>
Ref no_heads(Ref t, int64_t width = 0) {
  t = t.narrow(2, 0, 0);
  if (width > 0) t.shape[3] = width;
  return t;
}

void global_transform_backward(Context& cx, const ModelSpec& s, const Positions& at, const LayerActs& a,
                               LayerActGrads& g) {
  if (!transforms_keys(s.attention)) return;
  const ops::RopeRows rows = at.rows.narrow(0, a.q_g.size(1)), key_rows = at.keys().narrow(0, a.kt_g.size(1));
  if (!is_coca(s.attention)) {
    ops::rope_backward(cx, {.rows = rows, .dy = g.dq_g_eff, .dx = g.dq_g});
    ops::rope_backward(cx, {.rows = key_rows, .dy = g.dk_g_eff, .dx = g.dkt_g});
    return;
  }
  const ops::CollinearOptions options = collinear_options(s);
  ops::collinear_backward(cx, options,
                          {.rows = rows,
                           .key_rows = {},
                           .q = a.q_g,
                           .t = no_heads(a.q_g),
                           .dq_eff = g.dq_g_eff,
                           .dk_eff = no_heads(g.dq_g_eff),
                           .dq = g.dq_g,
                           .dt = no_heads(g.dq_g)});
  ops::collinear_backward(cx, options,
                          {.rows = key_rows,
                           .key_rows = {},
                           .q = no_heads(a.v_g),
                           .t = a.kt_g,
                           .dq_eff = no_heads(g.dk_g_eff),
                           .dk_eff = g.dk_g_eff,
                           .dq = no_heads(g.dv_g),
                           .dt = g.dkt_g});
}

}  // namespace

void modify(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const AttentionInputs& at, Stage stage,
            LayerActs& a, LayerCarry* carry, MutTensorRef x) {
  for (size_t i = 0; i < s.modifiers.size(); ++i)
    if (s.modifiers[i]->info().stage == stage)
      s.modifiers[i]->forward(
          {.cx = cx, .spec = s, .w = w.modifiers[i], .at = at, .acts = a, .own = a.own[i], .x = x, .carry = carry});
}

namespace {

// What modifier i is handed on the way back.
ModifierBackward backward_of(size_t i, Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w,
                             const AttentionInputs& at, const LayerActs& a, LayerActGrads& g,
                             LayerTensors<MutTensorRef>& dw) {
  return {.cx = cx,
          .spec = s,
          .w = w.modifiers[i],
          .dw = dw.modifiers[i],
          .at = at,
          .acts = a,
          .grads = g,
          .own = a.own[i],
          .down = g.down[i]};
}

}  // namespace

void modify_backward(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const AttentionInputs& at,
                     Stage stage, const LayerActs& a, LayerActGrads& g, LayerTensors<MutTensorRef>& dw) {
  const auto each = [&](void (Modifier::*step)(const ModifierBackward&) const) {
    for (size_t i = s.modifiers.size(); i-- > 0;)
      if (s.modifiers[i]->info().stage == stage) (s.modifiers[i]->*step)(backward_of(i, cx, s, w, at, a, g, dw));
  };
  each(&Modifier::backward);
  if (stage == Stage::kQueries) each(&Modifier::queries_backward);
}

void project_modifiers(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, LayerActs& a) {
  const AttentionInputs none;
  for (size_t i = 0; i < s.modifiers.size(); ++i)
    if (!a.own[i].empty())
      s.modifiers[i]->project(
          {.cx = cx, .spec = s, .w = w.modifiers[i], .at = none, .acts = a, .own = a.own[i], .x = {}});
}

void project_modifiers_backward(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const LayerActs& a,
                                LayerActGrads& g, LayerTensors<MutTensorRef>& dw) {
  const AttentionInputs none;
  for (size_t i = 0; i < s.modifiers.size(); ++i)
    if (!a.own[i].empty()) s.modifiers[i]->project_backward(backward_of(i, cx, s, w, none, a, g, dw));
}

void transform(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const AttentionInputs& inputs,
               LayerActs& a, LayerCarry* carry) {
  const Positions& at = inputs.positions;
  modify(cx, s, w, inputs, Stage::kKeys, a, carry);
  modify(cx, s, w, inputs, Stage::kDecay, a, carry);
  transform_queries(cx, s, w, inputs, a);
  if (is_coca(s.attention))
    ops::collinear_forward(cx, collinear_options(s),
                           {.rows = at.rows,
                            .key_rows = at.key_rows,
                            .q = no_heads(a.q),
                            .t = a.kt,
                            .q_eff = no_heads(a.q_eff),
                            .k_eff = a.k_eff});
  else if (uses_rotary(s.attention))
    ops::rope_forward(cx, {.rows = at.keys(), .x = a.kt, .y = a.k_eff});
}

void transform_queries(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const AttentionInputs& inputs,
                       LayerActs& a) {
  const Positions& at = inputs.positions;
  if (is_coca(s.attention))
    ops::collinear_query(cx, collinear_options(s), {.rows = at.rows, .q = a.q, .q_eff = a.q_eff});
  else if (uses_rotary(s.attention))
    ops::rope_forward(cx, {.rows = at.rows, .x = a.q, .y = a.q_eff});
  else if (has_stage(s, Stage::kQueries))
    ops::copy_heads(cx, a.q, a.q_eff);
  if (!at.turn.cos.empty()) ops::rope_forward(cx, {.rows = at.turn, .x = a.q_eff, .y = a.q_eff});
  modify(cx, s, w, inputs, Stage::kQueries, a, nullptr, a.q_eff);
}

void transform_apart(Context& cx, const ModelSpec& s, const ops::RopeRows& rows, const ops::RopeRows& key_rows,
                     TensorRef q, TensorRef kt, MutTensorRef q_eff, MutTensorRef k_eff) {
  if (is_coca(s.attention)) {
    const ops::CollinearOptions options = collinear_options(s);
    ops::collinear_query(cx, options, {.rows = rows, .q = q, .q_eff = q_eff});
    ops::collinear_forward(cx, options,
                           {.rows = key_rows,
                            .key_rows = {},
                            .q = no_heads(k_eff, s.D),
                            .t = kt,
                            .q_eff = no_heads(k_eff),
                            .k_eff = k_eff});
  } else if (uses_rotary(s.attention)) {
    ops::rope_forward(cx, {.rows = rows, .x = q, .y = q_eff});
    ops::rope_forward(cx, {.rows = key_rows, .x = kt, .y = k_eff});
  }
}

void transform_far_queries(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w,
                           const AttentionInputs& inputs, LayerActs& a) {
  const bool changes = has_stage(s, Stage::kQueries);
  if (!transforms_keys(s.attention) && !changes) return;  // q_far is q
  const ops::RopeRows& rows = inputs.positions.far_rows;
  if (is_coca(s.attention))
    ops::collinear_query(cx, collinear_options(s), {.rows = rows, .q = a.q, .q_eff = a.q_far});
  else if (transforms_keys(s.attention))
    ops::rope_forward(cx, {.rows = rows, .x = a.q, .y = a.q_far});
  else
    ops::copy_heads(cx, a.q, a.q_far);
  modify(cx, s, w, inputs, Stage::kQueries, a, nullptr, a.q_far);
}

ops::TopKeysOptions middle_options(const ModelSpec& s, const AttentionScope& at, int64_t query_start) {
  return {.count = s.pattern.middle_top_k,
          .scale = s.score_scale(),
          .first = s.pattern.sinks,
          .hidden = s.pattern.window,
          .query_start = query_start,
          .most_distance = at.far_most_distance};
}

void global_project(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, int64_t B, int64_t N,
                    const GlobalRows& n, LayerActs& a) {
  for (int64_t b = 0; b < B && n.queries > 0; ++b) {
    const auto one = [&](TensorRef weight, TensorRef bias, MutTensorRef y, int64_t rows) {
      ops::linear_forward(cx, {.x = TensorRef(a.ln1).narrow(0, b * N, rows),
                               .w = weight,
                               .b = bias,
                               .y = flat_row(y, b).narrow(0, 0, rows)});
    };
    if (s.qkv == Qkv::kFused) {
      one(w.qkv_global_w, w.qkv_global_b, a.qkv_g, n.keys);
      continue;
    }
    one(w.q_global_w, w.q_global_b, a.q_g, n.queries);
    one(w.k_global_w, w.k_global_b, a.kt_g, n.keys);
    one(w.v_global_w, w.v_global_b, a.v_g, n.keys);
  }
}

void global_transform(Context& cx, const ModelSpec& s, const Positions& at, LayerActs& a) {
  if (s.global_tokens == 0) return;
  transform_apart(cx, s, at.rows.narrow(0, a.q_g.size(1)), at.keys().narrow(0, a.kt_g.size(1)), a.q_g, a.kt_g,
                  a.q_g_eff, a.k_g_eff);
}

void attend(Context& cx, const ModelSpec& s, const AttentionInputs& inputs, int64_t start, TensorRef k, TensorRef v,
            TensorRef decay, const ops::FarKeys& far, LayerActs& a) {
  const auto& [positions, at] = inputs;
  const int64_t N = a.q_eff.size(1), globals = start == 0 ? global_rows(s, N).queries : 0;
  if (globals < N) {
    const Local local(s, at, globals, a.q_eff, k);
    ops::dilated_attention_forward(cx, {.attention = local_options(s, at, start + globals), .dilation = at.dilation},
                                   {.q = local.q,
                                    .k = k,
                                    .v = v,
                                    .slopes = positions.slopes,
                                    .decay = decay,
                                    .document_start = local.starts,
                                    .far = local.keys(far),
                                    .o = from_row(a.o, globals),
                                    .lse = a.lse.empty() ? a.lse : a.lse.narrow(2, globals, N - globals)});
  }
  if (globals == 0) return;
  ops::attention_forward(cx, global_options(s),
                         {.q = a.q_g_eff,
                          .k = a.k_g_eff,
                          .v = a.v_g,
                          .slopes = positions.slopes,
                          .document_start = {},
                          .far = {},
                          .o = a.o.narrow(1, 0, globals),
                          .lse = a.lse.empty() ? a.lse : a.lse.narrow(2, 0, globals)});
}

void attend_backward(Context& cx, const ModelSpec& s, const AttentionInputs& inputs, const LayerActs& a,
                     LayerActGrads& g) {
  const auto& [positions, at] = inputs;
  const int64_t N = a.q_eff.size(1), globals = global_rows(s, N).queries;
  if (!g.ddecay.empty()) set_zero(cx, g.ddecay);
  if (globals > 0) ops::zero_heads(cx, g.dq_eff.narrow(1, 0, globals));
  if (globals < N) {
    const Local local(s, at, globals, a.q_eff, a.k_eff);
    ops::dilated_attention_backward(cx, {.attention = local_options(s, at, globals), .dilation = at.dilation},
                                    {.q = local.q,
                                     .k = a.k_eff,
                                     .v = a.v,
                                     .slopes = positions.slopes,
                                     .decay = a.decay,
                                     .document_start = local.starts,
                                     .far = local.keys({}),
                                     .o = from_row(TensorRef(a.o), globals),
                                     .lse = a.lse.narrow(2, globals, N - globals),
                                     .d_o = from_row(TensorRef(g.d_o), globals),
                                     .dq = from_row(g.dq_eff, globals),
                                     .dk = g.dk_eff,
                                     .dv = g.dv,
                                     .dq_far = g.dq_far,
                                     .dk_far = g.dk_far,
                                     .dv_far = {},
                                     .ddecay = g.ddecay});
    if (local.far) {
      ops::add_heads(cx, g.dq_far, from_row(g.dq_eff, globals));
      ops::add_heads(cx, g.dk_far, g.dk_eff.narrow(1, 0, globals));
    }
  } else {
    ops::zero_heads(cx, g.dk_eff);
    ops::zero_heads(cx, g.dv);
  }
  if (globals == 0) return;
  if (!g.dqkv_g.empty())
    ops::zero_heads(
        cx, std::get<0>(split_qkv(s, g.dqkv_g)));  // of tokens whose global keys are seen, but not their queries
  ops::attention_backward(cx, global_options(s),
                          {.q = a.q_g_eff,
                           .k = a.k_g_eff,
                           .v = a.v_g,
                           .slopes = positions.slopes,
                           .document_start = {},
                           .far = {},
                           .o = TensorRef(a.o).narrow(1, 0, globals),
                           .lse = TensorRef(a.lse).narrow(2, 0, globals),
                           .d_o = TensorRef(g.d_o).narrow(1, 0, globals),
                           .dq = g.dq_g_eff,
                           .dk = g.dk_g_eff,
                           .dv = g.dv_g,
                           .dq_far = {},
                           .dk_far = {},
                           .dv_far = {}});
  global_transform_backward(cx, s, positions, a, g);
}

void global_project_backward(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const LayerActs& a,
                             LayerActGrads& g, LayerTensors<MutTensorRef>& dw) {
  if (s.global_tokens == 0) return;
  const int64_t B = a.q.size(0), N = a.q.size(1);
  for (int64_t b = 0; b < B; ++b) {
    const auto one = [&](TensorRef weight, MutTensorRef dy, MutTensorRef dweight, MutTensorRef dbias) {
      const int64_t rows = dy.size(1);
      ops::linear_backward(cx, {.x = TensorRef(a.ln1).narrow(0, b * N, rows),
                                .w = weight,
                                .dy = flat_row(dy, b),
                                .dx = g.dln1.narrow(0, b * N, rows),
                                .dw = dweight,
                                .db = dbias,
                                .dx_write = ops::Write::kAccumulate});
    };
    if (s.qkv == Qkv::kFused) {
      one(w.qkv_global_w, g.dqkv_g, dw.qkv_global_w, dw.qkv_global_b);
      continue;
    }
    one(w.q_global_w, g.dq_g, dw.q_global_w, dw.q_global_b);
    one(w.k_global_w, g.dkt_g, dw.k_global_w, dw.k_global_b);
    one(w.v_global_w, g.dv_g, dw.v_global_w, dw.v_global_b);
  }
}

}  // namespace coca::model

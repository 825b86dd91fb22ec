// SPDX-License-Identifier: Apache-2.0
#include "coca/model/key_source.h"

#include <algorithm>

#include "coca/model/layer_attention.h"
#include "coca/ops/collinear.h"
#include "coca/ops/heads.h"
#include "coca/ops/rope.h"

namespace coca::model {

namespace {

// What attention sees beyond the window: q_far is written, and k_far [B, n, G, D] is written: the first n tokens here.
void transform_far(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const AttentionInputs& inputs,
                   LayerActs& a, MutTensorRef k_far) {
  transform_far_queries(cx, s, w, inputs, a);
  if (!transforms_keys(s.attention)) return;  // k_far is kt
  const Positions& at = inputs.positions;
  const int64_t n = k_far.empty() ? 0 : k_far.size(1);
  if (n == 0) return;
  const ops::RopeRows key_rows = at.far_key_rows.narrow(0, n);
  if (!is_coca(s.attention)) return ops::rope_forward(cx, {.rows = key_rows, .x = a.kt.narrow(1, 0, n), .y = k_far});
  const ops::CollinearOptions options = collinear_options(s);
  const MutTensorRef tbar =
      cx.scratch_tensor({a.kt.size(0), n, s.G, s.stored_width()}, DType::kF32, ScratchUser::kFoldedT);
  ops::collinear_fold(cx, options, {.R = s.R, .t = a.kt.narrow(1, 0, n), .tbar = tbar});
  ops::collinear_key(cx, options, {.rows = key_rows, .tbar = tbar, .k_eff = k_far});
}

// Keys that every query sees: of all that stand as such, the first.
ops::FarKeys far_keys(const AttentionScope& at, TensorRef q, TensorRef k) {
  if (at.far_tokens == 0) return {};
  return {.q = q,
          .k = k.narrow(1, 0, std::min(at.far_tokens, k.size(1))),
          .v = {},
          .most_distance = at.far_most_distance,
          .most_position = at.far_most_position};
}

// Those of the other keys in k_far [B, S, G, D] that score highest join the softmax.
void attend_middle(Context& cx, const ModelSpec& s, const AttentionInputs& at, int64_t start, TensorRef k_far,
                   TensorRef v, LayerActs& a) {
  ops::top_keys_find(
      cx, middle_options(s, at.scope, start),
      {.q = a.q_far, .k = k_far, .slopes = at.positions.slopes, .scores = a.top_scores, .keys = a.top_keys});
  ops::top_keys_add(cx, {.scores = a.top_scores, .keys = a.top_keys, .v = v, .o = a.o, .lse = a.lse});
}

void global_tokens(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const Positions& at,
                   LayerActs& a) {
  global_project(cx, s, w, a.q.size(0), a.q.size(1), global_rows(s, a.q.size(1)), a);
  global_transform(cx, s, at, a);
}

}  // namespace

void WholeSequences::attend(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w,
                            const AttentionInputs& at, LayerActs& a) {
  transform(cx, s, w, at, a);
  global_tokens(cx, s, w, at.positions, a);
  ops::FarKeys far;
  if (const int64_t count = s.pattern.far_keys(a.kt.size(1)); count > 0) {
    const MutTensorRef k_far = a.k_far.narrow(1, 0, count);
    transform_far(cx, s, w, at, a, k_far);
    far = far_keys(at.scope, a.q_far, k_far);
  }
  model::attend(cx, s, at, 0, a.k_eff, a.v, a.decay, far, a);
  if (at.scope.middle_keys > 0) attend_middle(cx, s, at, 0, a.k_far, a.v, a);
  modify(cx, s, w, at, Stage::kSoftmax, a);
}

void ChunkedSequence::place(const ModelSpec& s, LayerActs& a) const {
  const int64_t n = a.q.size(1);
  if (transforms_keys(s.attention)) a.k_eff = keys_.k_eff.narrow(1, start_, n);
  const bool mixes = has_stage(s, Stage::kKeys);
  if (s.qkv == Qkv::kSeparate || mixes) a.v = keys_.v.narrow(1, start_, n);
  if (!mixes && s.qkv == Qkv::kSeparate) a.v_in = a.v;
  if (has_stage(s, Stage::kDecay)) a.decay = keys_.decay.narrow(2, start_, n);
}

void ChunkedSequence::attend(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w,
                             const AttentionInputs& at, LayerActs& a) {
  const int64_t n = a.q.size(1), end = start_ + n;
  const bool turns = transforms_keys(s.attention);
  LayerCarry carry{.kt = keys_.last_kt, .v = keys_.last_v, .decay = keys_.last_decay, .first = start_ == 0};
  transform(cx, s, w, at, a, &carry);
  if (has_stage(s, Stage::kKeys)) {
    ops::copy_heads(cx, a.kt_in.narrow(1, n - 1, 1), keys_.last_kt);
    ops::copy_heads(cx, a.v_in.narrow(1, n - 1, 1), keys_.last_v);
  }
  if (!turns) ops::copy_heads(cx, a.kt, keys_.k_eff.narrow(1, start_, n));
  if (s.qkv == Qkv::kFused && !has_stage(s, Stage::kKeys)) ops::copy_heads(cx, a.v, keys_.v.narrow(1, start_, n));
  if (start_ == 0) global_tokens(cx, s, w, at.positions, a);
  ops::FarKeys far;
  const MutTensorRef all_far = turns ? keys_.k_far : keys_.k_eff;
  const int64_t before = s.pattern.far_keys(start_), seen = s.pattern.far_keys(end);
  if (seen > 0) {
    transform_far(cx, s, w, at, a, seen > before ? all_far.narrow(1, before, seen - before) : MutTensorRef());
    far = far_keys(at.scope, a.q_far, all_far.narrow(1, 0, seen));
  }
  const MutTensorRef v = keys_.v.narrow(1, 0, end);
  const TensorRef decay = keys_.decay.empty() ? keys_.decay : keys_.decay.narrow(2, 0, end);
  model::attend(cx, s, at, start_, keys_.k_eff.narrow(1, 0, end), v, decay, far, a);
  if (at.scope.middle_keys > 0) attend_middle(cx, s, at, start_, all_far.narrow(1, 0, seen), v, a);
  modify(cx, s, w, at, Stage::kSoftmax, a);
}

}  // namespace coca::model

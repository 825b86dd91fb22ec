// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/cached_decoder.h"

#include <cstring>
#include <utility>

#include "coca/base/parallel.h"
#include "coca/ops/attention.h"
#include "coca/ops/collinear.h"
#include "coca/ops/embedding.h"
#include "coca/ops/linear.h"
#include "coca/ops/norm.h"
#include "coca/ops/rope.h"

namespace coca::infer {

using model::AttentionKind;

namespace {

// dst [B, N, G, W] = src, both possibly strided in the first three dimensions.
void copy_heads(TensorRef src, MutTensorRef dst) {
  const auto s = src.view<float, 4>();
  const auto d = dst.view<float, 4>();
  for (int64_t b = 0; b < s.size(0); ++b)
    for (int64_t n = 0; n < s.size(1); ++n)
      for (int64_t g = 0; g < s.size(2); ++g)
        std::memcpy(d.ptr(b, n, g), s.ptr(b, n, g), static_cast<size_t>(s.size(3)) * sizeof(float));
}

}  // namespace

CachedDecoder::CachedDecoder(const model::ModelSpec& spec, const model::Weights& weights, int64_t B, DynamicBase policy,
                             int64_t planned_length)
    : spec_(spec), weights_(weights), policy_(policy), planned_length_(planned_length),
      cache_(spec, B, planned_length), positions_(spec), B_(B) {
  model::validate(spec);
  COCA_CHECK(policy == DynamicBase::kStep || planned_length > 0,
             "[generate] a base fixed per request needs the planned length, found {}", planned_length);
}

void CachedDecoder::prepare(int64_t N) {
  if (N == N_) return;
  model::bind_forward_acts(spec_, B_, N, arena_, acts_, x_, y_);
  N_ = N;
}

// The new tokens' t (or k) and v go into the cache un-rotated; attention sees all S keys rotated by today's base.
void CachedDecoder::attend(Context& cx, size_t layer, int64_t N, int64_t S) {
  const auto l = static_cast<int64_t>(layer);
  const bool coca = model::is_coca(spec_.attention), rotary = model::uses_rotary(spec_.attention);
  const MutTensorRef new_keys = cache_.keys(l, S - N, N);
  if (coca)
    ops::collinear_fold(cx, model::collinear_options(spec_), {.R = spec_.R, .t = acts_.k, .tbar = new_keys});
  else
    copy_heads(acts_.k, new_keys);
  copy_heads(acts_.v, cache_.values(l, S - N, N));

  const TensorRef stored = cache_.keys(l, 0, S);
  TensorRef keys = stored;
  if (rotary) {
    const ops::RopeRows all = all_.rows;
    const ops::RopeRows now{all.cos.narrow(1, S - N, N), all.sin.narrow(1, S - N, N)};
    const MutTensorRef rotated = rotated_keys_.ref().narrow(1, 0, S);
    if (coca) {
      ops::collinear_query(cx, model::collinear_options(spec_), {.rows = now, .q = acts_.q, .q_eff = acts_.q_eff});
      ops::collinear_key(cx, model::collinear_options(spec_), {.rows = all, .tbar = stored, .k_eff = rotated});
    } else {
      ops::rope_forward(cx, {.rows = now, .x = acts_.q, .y = acts_.q_eff});
      ops::rope_forward(cx, {.rows = all, .x = stored, .y = rotated});
    }
    keys = rotated;
  }
  ops::attention_forward(cx, {.mask = ops::Mask::kCausal, .query_start = S - N},
                         {.q = acts_.q_eff, .k = keys, .v = cache_.values(l, 0, S), .slopes = all_.slopes, .o = acts_.o});
}

TensorRef CachedDecoder::append(Context& cx, TensorRef ids) {
  COCA_CHECK(ids.rank() == 2 && ids.size(0) == B_ && ids.size(1) >= 1, "[generate] ids {} must be [{}, N] with N >= 1",
             ids.shape.text(), B_);
  const int64_t N = ids.size(1), S = cache_.length() + N;
  prepare(N);
  cache_.reserve(S);
  if (model::uses_rotary(spec_.attention) && (rotated_keys_.empty() || rotated_keys_.size(1) < S))
    rotated_keys_ = Tensor({B_, cache_.capacity(), spec_.G, spec_.D});
  // With a base that stays, the table is built once per capacity and reused.
  const bool moving = spec_.rope_scaling.type == model::Scaling::kDynamic && policy_ == DynamicBase::kStep;
  const int64_t scaling_length = policy_ == DynamicBase::kRequest ? std::max(planned_length_, S) : S;
  all_ = positions_.at(0, moving ? S : cache_.capacity(), scaling_length);
  if (!all_.rows.cos.empty()) all_.rows = {all_.rows.cos.narrow(1, 0, S), all_.rows.sin.narrow(1, 0, S)};

  ops::embedding_forward(cx, {.ids = ids.reshape({B_ * N}), .table = weights_.embed, .y = x_});
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    model::layer_project(cx, spec_, weights_.layers[i], x_, acts_);
    attend(cx, i, N, S);
    model::layer_finish(cx, spec_, weights_.layers[i], x_, acts_, y_);
    std::swap(x_, y_);
  }
  ops::norm_forward(cx, {.kind = spec_.norm, .eps = static_cast<float>(spec_.norm_eps), .x = x_, .w = weights_.norm_w,
                         .b = weights_.norm_b, .y = y_});
  cache_.advance(N);
  return TensorRef(y_).reshape({B_, N, spec_.C});
}

TensorRef CachedDecoder::last_logits(Context& cx) {
  COCA_CHECK(N_ >= 1, "[generate] no token has been appended yet");
  if (logits_.empty()) logits_ = Tensor({B_, spec_.V});
  const TensorRef last = TensorRef(y_).reshape({B_, N_, spec_.C}).select(1, N_ - 1);  // [B, C], strided rows
  ops::linear_forward(cx, {.x = last, .w = weights_.head, .y = logits_});
  return logits_.ref();
}

}  // namespace coca::infer

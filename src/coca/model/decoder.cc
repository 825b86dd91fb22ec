// SPDX-License-Identifier: Apache-2.0
#include "coca/model/decoder.h"

#include <algorithm>
#include <cstring>

#include "coca/ops/attention.h"
#include "coca/ops/cross_entropy.h"
#include "coca/ops/embedding.h"
#include "coca/ops/norm.h"

namespace coca::model {

namespace {

void check_ids(TensorRef ids, const char* what) {
  COCA_CHECK(ids.rank() == 2 && ids.dtype == DType::kI32 && ids.numel() > 0 && ids.contiguous(),
             "[decoder] {} must be a contiguous non-empty i32 [B, N], not {} {}", what, dtype_name(ids.dtype),
             ids.shape.text());
}

void trace_layer(Context& cx, size_t i, const LayerActs& a) {
  if (!cx.tracing()) return;
  const std::string at = "layer." + std::to_string(i) + ".";
  cx.trace(at + "q_eff", a.q_eff);
  cx.trace(at + "k_eff", a.k_eff);
  cx.trace(at + "v", a.v);
  cx.trace(at + "o", a.o);
}

}  // namespace

PositionSource::PositionSource(const ModelSpec& spec) : spec_(spec) {
  if (spec.attention != AttentionKind::kAlibi) return;
  const std::vector<float> slopes = ops::alibi_slopes(spec.H);
  slopes_ = Tensor({spec.H});
  std::copy(slopes.begin(), slopes.end(), slopes_.values<float>().begin());
}

Positions PositionSource::at(int64_t start, int64_t n, int64_t seq_len) {
  Positions p;
  if (!slopes_.empty()) p.slopes = slopes_.ref();
  if (uses_rotary(spec_.attention)) {
    table_.build(spec_, start, n, seq_len);
    p.rows = table_.rows(0, n);
  }
  return p;
}

Decoder::Decoder(const ModelSpec& spec, const Weights& weights) : spec_(spec), weights_(weights), positions_(spec) {
  validate(spec);
}

void Decoder::prepare(int64_t B, int64_t N) {
  if (B == B_ && N == N_) return;
  bind_forward_acts(spec_, B, N, arena_, acts_, x_, y_);
  B_ = B;
  N_ = N;
}

TensorRef Decoder::forward(Context& cx, TensorRef ids, int64_t scaling_length) {
  check_ids(ids, "ids");
  const int64_t B = ids.size(0), N = ids.size(1), M = B * N;
  prepare(B, N);
  const Positions at = positions_.at(0, N, scaling_length > 0 ? scaling_length : N);
  ops::embedding_forward(cx, {.ids = ids.reshape({M}), .table = weights_.embed, .y = x_});
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    if (cx.tracing()) cx.trace("hidden." + std::to_string(i), x_);
    layer_forward(cx, spec_, weights_.layers[i], at, x_, acts_, y_);
    trace_layer(cx, i, acts_);
    std::swap(x_, y_);
  }
  ops::norm_forward(cx, {.kind = spec_.norm, .eps = static_cast<float>(spec_.norm_eps), .x = x_, .w = weights_.norm_w,
                         .b = weights_.norm_b, .y = y_});
  if (cx.tracing()) cx.trace("hidden." + std::to_string(weights_.layers.size()), y_);
  return y_;
}

TrainingDecoder::TrainingDecoder(const ModelSpec& spec, int64_t B, int64_t N)
    : spec_(spec), B_(B), N_(N), positions_(spec), acts_(static_cast<size_t>(spec.L)),
      x_(static_cast<size_t>(spec.L) + 1) {
  validate(spec);
  COCA_CHECK(B >= 1 && N >= 1, "[decoder] batch {} and length {} must be positive", B, N);
  const int64_t M = B * N;
  ArenaPlan plan;
  const auto add = [&](std::string name, const Dims& shape, MutTensorRef& slot) {
    plan.add(std::move(name), shape, DType::kF32, &slot);
  };
  for (size_t i = 0; i < x_.size(); ++i) add("x." + std::to_string(i), {M, spec.C}, x_[i]);
  for (size_t i = 0; i < acts_.size(); ++i)
    plan_layer_acts(spec, B, N, "layer." + std::to_string(i) + ".", Keep::kForBackward, plan, acts_[i]);
  add("normed", {M, spec.C}, normed_);
  add("norm_stat", {M, 2}, norm_stat_);
  add("nll", {M}, nll_);
  add("stream", {M, spec.C}, stream_);
  // The forward pass's branches and the backward pass's gradients never live at the same time.
  const size_t mark = plan.mark();
  add("branch", {M, spec.C}, branch_);
  add("branch2", {M, spec.C}, branch2_);
  plan.rewind(mark);
  add("dnormed", {M, spec.C}, dnormed_);
  plan_layer_act_grads(spec, B, N, plan, grad_acts_);
  arena_.bind(plan);
  for (LayerActs& a : acts_) {
    a.branch = branch_;
    a.branch2 = branch2_;
    finish_layer_acts(spec, a);
  }
  finish_layer_act_grads(spec, grad_acts_);
}

void TrainingDecoder::forward(Context& cx, const Weights& w, TensorRef ids) {
  const Positions at = positions_.at(0, N_, N_);
  ops::embedding_forward(cx, {.ids = ids.reshape({B_ * N_}), .table = w.embed, .y = x_[0]});
  for (size_t i = 0; i < acts_.size(); ++i) {
    layer_forward(cx, spec_, w.layers[i], at, x_[i], acts_[i], x_[i + 1]);
    trace_layer(cx, i, acts_[i]);
  }
  ops::norm_forward(cx, {.kind = spec_.norm, .eps = static_cast<float>(spec_.norm_eps), .x = x_.back(), .w = w.norm_w,
                         .b = w.norm_b, .y = normed_, .stat = norm_stat_});
}

void TrainingDecoder::backward(Context& cx, const Weights& w, TensorRef ids, MutWeights& grads) {
  const Positions at = positions_.at(0, N_, N_);
  std::memset(stream_.data, 0, stream_.bytes());
  ops::norm_backward(cx, {.kind = spec_.norm, .x = x_.back(), .w = w.norm_w, .stat = norm_stat_, .dy = dnormed_,
                          .dx = stream_, .dw = grads.norm_w, .db = grads.norm_b});
  for (size_t i = acts_.size(); i-- > 0;)
    layer_backward(cx, spec_, w.layers[i], at, x_[i], acts_[i], grad_acts_, grads.layers[i], stream_);
  ops::embedding_backward(cx, {.ids = ids.reshape({B_ * N_}), .dy = stream_, .dtable = grads.embed});
}

TensorRef TrainingDecoder::forward_backward(Context& cx, const Weights& w, TensorRef ids, TensorRef targets,
                                            float scale, MutWeights& grads) {
  check_ids(ids, "ids");
  check_ids(targets, "targets");
  COCA_CHECK(ids.shape == Dims({B_, N_}) && targets.shape == ids.shape, "[decoder] ids {} and targets {} must be [{}, {}]",
             ids.shape.text(), targets.shape.text(), B_, N_);
  forward(cx, w, ids);
  ops::lm_loss_forward_backward(cx, {.x = normed_, .w = w.head, .targets = targets.reshape({B_ * N_}), .nll = nll_},
                                {.scale = scale, .dx = dnormed_, .dw = grads.head});
  backward(cx, w, ids, grads);
  return nll_;
}

}  // namespace coca::model

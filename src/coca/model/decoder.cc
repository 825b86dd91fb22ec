// SPDX-License-Identifier: Apache-2.0
#include "coca/model/decoder.h"

#include <algorithm>
#include <utility>

#include "coca/model/clex.h"
#include "coca/model/layer_attention.h"
#include "coca/ops/attention.h"
#include "coca/ops/cross_entropy.h"
#include "coca/ops/device.h"
#include "coca/ops/embedding.h"
#include "coca/ops/heads.h"
#include "coca/ops/norm.h"
#include "coca/tensor/transfer.h"

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
  cx.trace(at + "q", a.q);
  cx.trace(at + "k", a.kt);
  cx.trace(at + "q_eff", a.q_eff);
  cx.trace(at + "k_eff", a.k_eff);
  cx.trace(at + "v", a.v);
  cx.trace(at + "o", a.o);
}

// Where tokens see ahead a layer cannot go through a sequence in parts.
int64_t chunk_of(const ModelSpec& s, int64_t N, const DecoderOptions& options) {
  return s.direction == Direction::kBidirectional ? std::max(N, options.chunk_tokens) : options.chunk_tokens;
}

// The layer below which no gradient is wanted.
size_t lowest_trained(const MutWeights& grads) {
  if (!grads.embed.empty() || !grads.clex_up.empty() || !grads.clex_down.empty()) return 0;
  size_t i = 0;
  while (i < grads.layers.size() && !has_tensors(grads.layers[i])) ++i;
  return i;
}

// A remainder shorter than a tile goes with the part in front of it: attention has another form for few queries.
constexpr int64_t kTile = 64;
int64_t part_length(int64_t left, int64_t chunk) { return left < chunk + kTile ? left : chunk; }
int64_t longest_part(int64_t N, int64_t chunk) { return N % chunk < kTile ? chunk + N % chunk : chunk; }

}  // namespace

Decoder::Decoder(const ModelSpec& spec, const Weights& weights, const DecoderOptions& options)
    : spec_(spec),
      weights_(weights),
      options_(options),
      memory_(ops::device_memory(weights.embed.device)),
      positions_(spec, &weights, memory_),
      arena_(memory_) {
  validate(spec);
  COCA_CHECK(options.chunk_tokens >= kTile && options.chunk_tokens % kTile == 0,
             "[decoder] chunk_tokens {} must be a positive multiple of {}", options.chunk_tokens, kTile);
}

// Where one pass over [B, N] keeps what it computes; the slots are bound with the plan.
void Decoder::plan(const ModelSpec& s, DType type, int64_t B, int64_t N, int64_t chunk, Buffers& out, ArenaPlan& plan) {
  const bool parts = N > chunk;
  out = {};
  out.sequences = parts ? 1 : std::min(B, chunk / N);
  out.tokens = parts ? chunk : N;
  const auto add = [&](const char* name, const Dims& shape, MutTensorRef& slot) { plan.add(name, shape, type, &slot); };
  plan.add("x", {B * N, s.C}, DType::kF32, &out.x);
  const size_t mark = plan.mark();
  if (parts) {
    add("keys.k_eff", {1, N, s.G, s.score_width()}, out.keys.k_eff);
    add("keys.v", {1, N, s.G, s.D}, out.keys.v);
    if (s.pattern.far() && transforms_keys(s.attention))
      add("keys.k_far", {1, s.pattern.far_keys(N), s.G, s.score_width()}, out.keys.k_far);
    if (has_stage(s, Stage::kKeys)) {
      add("keys.last_kt", {1, 1, s.G, s.key_width()}, out.keys.last_kt);
      add("keys.last_v", {1, 1, s.G, s.D}, out.keys.last_v);
    }
    if (has_stage(s, Stage::kDecay)) {
      plan.add("keys.decay", {1, s.H, N}, DType::kF32, &out.keys.decay);
      plan.add("keys.last_decay", {1, s.H, 2}, DType::kF32, &out.keys.last_decay);
    }
  }
  const int64_t longest = parts ? longest_part(N, chunk) : N;
  plan_layer_acts(s, {.B = out.sequences, .N = longest, .dtype = type}, "chunk.", parts ? Acts::kChunk : Acts::kForward,
                  plan, out.acts);
  add("branch", {out.sequences * longest, s.C}, out.acts.branch);
  add("branch2", {out.sequences * longest, s.C}, out.acts.branch2);
  plan.rewind(mark);
  if (type != DType::kF32) add("hidden", {B * N, s.C}, out.hidden);
}

size_t Decoder::activation_bytes(const ModelSpec& spec, int64_t B, int64_t N, Precision precision,
                                 const DecoderOptions& options) {
  Buffers unused;
  ArenaPlan bytes;
  plan(spec, dtype_of(precision), B, N, chunk_of(spec, N, options), unused, bytes);
  return bytes.bytes();
}

// A layer goes through the tokens in chunks twice: up to the queries, keys and values of all, and on from their
// attention.
void Decoder::plan_ring(const ModelSpec& s, DType type, int64_t B, int64_t N, int64_t chunk, Buffers& out,
                        ArenaPlan& plan) {
  out = {};
  out.sequences = 1;
  out.tokens = std::min(chunk, N);
  const int64_t longest = N > chunk ? longest_part(N, chunk) : N;
  plan.add("x", {B * N, s.C}, DType::kF32, &out.x);
  const size_t mark = plan.mark();
  plan.add("ring.q_eff", {B, N, s.H, s.score_width()}, type, &out.q_eff);
  plan.add("ring.o", {B, N, s.H, s.D}, DType::kF32, &out.o);
  plan.add("ring.lse", {B, s.H, N}, DType::kF32, &out.lse);
  plan_layer_acts(s, {.B = 1, .N = longest, .dtype = type}, "chunk.", Acts::kForward, plan, out.acts);
  plan.add("branch", {longest, s.C}, type, &out.acts.branch);
  plan.add("branch2", {longest, s.C}, type, &out.acts.branch2);
  plan.rewind(mark);
  if (type != DType::kF32) plan.add("hidden", {B * N, s.C}, type, &out.hidden);
}

void Decoder::set_ring(RingAttention* ring) {
  COCA_CHECK(!ring || !memory_, "[ring] sequences are split over ranks on the CPU only; the weights lie on {}",
             weights_.embed.device.text());
  if (!ring != !ring_) B_ = 0;  // plan anew
  ring_ = ring;
}

void Decoder::ring_layer(Context& cx, size_t i, const AttentionInputs& inputs) {
  const AttentionInputs at = inputs.in_layer(spec_, i);
  const LayerTensors<TensorRef>& w = weights_.layers[i];
  const auto each_part = [&](const auto& body) {
    for (int64_t b = 0; b < B_; ++b)
      for (int64_t n = 0, length = 0; n < N_; n += length) {
        length = part_length(N_ - n, buffers_.tokens);
        LayerActs acts = resize_layer_acts(spec_, buffers_.acts, 1, length);
        const auto of_all = [&](MutTensorRef t) { return t.narrow(0, b, 1).narrow(1, n, length); };
        body(acts, buffers_.x.narrow(0, b * N_ + n, length), of_all, b, n);
      }
  };
  each_part([&](LayerActs& acts, MutTensorRef x, const auto& of_all, int64_t b, int64_t n) {
    if (transforms_keys(spec_.attention)) acts.q_eff = of_all(buffers_.q_eff);
    layer_project(cx, spec_, w, x, acts);
    transform(cx, spec_, w, at.narrow(n, acts.q.size(1)), acts);
    if (!transforms_keys(spec_.attention)) ops::copy_heads(cx, acts.q_eff, of_all(buffers_.q_eff));
    ring_->put(cx, acts, B_, b, n);
  });
  ring_->attend_all(cx, at, buffers_.q_eff, buffers_.o, buffers_.lse);
  LayerActs attended;
  attended.o = buffers_.o;
  attended.lse = buffers_.lse;
  modify(cx, spec_, w, at, Stage::kSoftmax, attended);
  each_part([&](LayerActs& acts, MutTensorRef x, const auto& of_all, int64_t, int64_t) {
    if (has_stage(spec_, Stage::kOutput))
      layer_project(cx, spec_, w, x, acts);  // its gates are not kept for all tokens
    ops::copy_heads(cx, of_all(buffers_.o), acts.o);
    layer_finish(cx, spec_, w, x, acts, x);
  });
}

void Decoder::prepare(int64_t B, int64_t N, int64_t chunk) {
  if (B == B_ && N == N_ && chunk == chunk_) return;
  ArenaPlan bytes;
  (ring_ ? plan_ring : plan)(spec_, weights_.embed.dtype, B, N, chunk, buffers_, bytes);
  arena_.bind(bytes);
  if (buffers_.hidden.empty()) buffers_.hidden = buffers_.x;
  B_ = B;
  N_ = N;
  chunk_ = chunk;
}

// Chunks of several whole sequences, or sequence by sequence in parts; their rows of x are adjacent either way.
void Decoder::layer(Context& cx, size_t i, const AttentionInputs& inputs) {
  const AttentionInputs at = inputs.in_layer(spec_, i);
  const auto rows = [&](int64_t b, int64_t n, int64_t count) { return buffers_.x.narrow(0, b * N_ + n, count); };
  const LayerTensors<TensorRef>& w = weights_.layers[i];
  for (int64_t b = 0; b < B_; b += buffers_.sequences) {
    const int64_t count = std::min(buffers_.sequences, B_ - b);
    if (buffers_.tokens == N_) {
      LayerActs acts = resize_layer_acts(spec_, buffers_.acts, count, N_);
      WholeSequences keys;
      layer_forward(cx, spec_, w, at, keys, rows(b, 0, count * N_), acts, rows(b, 0, count * N_));
      trace_layer(cx, i, acts);
      continue;
    }
    for (int64_t n = 0, length = 0; n < N_; n += length) {
      length = part_length(N_ - n, buffers_.tokens);
      LayerActs acts = resize_layer_acts(spec_, buffers_.acts, 1, length);
      ChunkedSequence keys(buffers_.keys, n);
      layer_forward(cx, spec_, w, at.narrow(n, length), keys, rows(b, n, length), acts, rows(b, n, length));
    }
  }
}

TensorRef Decoder::forward(Context& cx, TensorRef ids, int64_t scaling_length) {
  check_ids(ids, "ids");
  const int64_t B = ids.size(0), N = ids.size(1), M = B * N;
  COCA_CHECK(!ring_ || N == ring_->tokens(), "[decoder] {} tokens; this rank holds {} of {}", N, ring_->tokens(),
             ring_->split().length());
  prepare(B, N, cx.tracing() && !ring_ ? M : chunk_of(spec_, N, options_));
  const AttentionInputs at =
      ring_ ? ring_->begin(positions_, scaling_length) : positions_.at(0, N, scaling_length > 0 ? scaling_length : N);
  ops::embedding_forward(cx, {.ids = ids.reshape({M}), .table = weights_.embed, .y = buffers_.x});
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    if (cx.tracing()) cx.trace("hidden." + std::to_string(i), buffers_.x);
    if (ring_)
      ring_layer(cx, i, at);
    else
      layer(cx, i, at);
  }
  ops::norm_forward(cx, {.kind = spec_.norm,
                         .eps = static_cast<float>(spec_.norm_eps),
                         .x = buffers_.x,
                         .w = weights_.norm_w,
                         .b = weights_.norm_b,
                         .y = buffers_.hidden});
  if (cx.tracing()) cx.trace("hidden." + std::to_string(weights_.layers.size()), buffers_.hidden);
  return buffers_.hidden;
}

TrainingDecoder::TrainingDecoder(const ModelSpec& spec, int64_t B, int64_t N, const TrainingOptions& options)
    : TrainingDecoder(spec, B, N, options, Memory::kBound) {}

size_t TrainingDecoder::activation_bytes(const ModelSpec& spec, int64_t B, int64_t N, const TrainingOptions& options) {
  return TrainingDecoder(spec, B, N, options, Memory::kPlanned).planned_bytes_;
}

TrainingDecoder::TrainingDecoder(const ModelSpec& spec, int64_t B, int64_t N, const TrainingOptions& options,
                                 Memory memory)
    : spec_(spec),
      B_(B),
      N_(N),
      options_(options),
      positions_(spec, nullptr, options.memory),
      arena_(options.memory),
      acts_(static_cast<size_t>(spec.L)),
      x_(static_cast<size_t>(spec.L) + 1) {
  validate(spec);
  COCA_CHECK(B >= 1 && N >= 1, "[decoder] batch {} and length {} must be positive", B, N);
  COCA_CHECK(trains(spec.pattern),
             "[decoder] pattern {} is for evaluation; models train with full attention or sliding windows",
             enum_name(spec.pattern.type));
  plan(memory);
}

void TrainingDecoder::plan(Memory memory) {
  const int64_t M = B_ * N_;
  const ActShape shape{.B = B_, .N = N_, .dtype = dtype_of(options_.precision)};
  ArenaPlan plan;
  const auto add = [&](std::string name, const Dims& dims, MutTensorRef& slot, DType type = DType::kF32) {
    plan.add(std::move(name), dims, type, &slot);
  };
  for (size_t i = 0; i < x_.size(); ++i) add("x." + std::to_string(i), {M, spec_.C}, x_[i]);
  if (options_.recompute != Recompute::kLayer)
    for (size_t i = 0; i < acts_.size(); ++i)
      plan_layer_acts(spec_, shape, "layer." + std::to_string(i) + ".",
                      options_.recompute == Recompute::kNone ? Acts::kAll : Acts::kKept, plan, acts_[i]);
  LayerActs shared;
  if (options_.recompute != Recompute::kNone)
    plan_layer_acts(spec_, shape, "shared.", options_.recompute == Recompute::kLayer ? Acts::kAll : Acts::kRemade, plan,
                    shared);
  add("normed", {M, spec_.C}, normed_, shape.dtype);
  add("norm_stat", {M, 2}, norm_stat_);
  add("nll", {M}, nll_);
  add("stream", {M, spec_.C}, stream_);
  // The forward pass's branches and the backward pass's gradients never live at the same time: a layer is remade when
  // the gradients of the one above have been used.
  const size_t mark = plan.mark();
  add("branch", {M, spec_.C}, shared.branch, shape.dtype);
  add("branch2", {M, spec_.C}, shared.branch2, shape.dtype);
  plan.rewind(mark);
  add("dnormed", {M, spec_.C}, dnormed_);
  plan_layer_act_grads(spec_, shape, plan, grad_acts_);
  planned_bytes_ = plan.bytes();
  if (memory == Memory::kPlanned) return;
  arena_.bind(plan);
  for (LayerActs& a : acts_) {
    fill_layer_acts(spec_, shape, shared, a);
    finish_layer_acts(spec_, a);
  }
  finish_layer_act_grads(spec_, grad_acts_);
}

void TrainingDecoder::set_ring(RingAttention* ring) {
  COCA_CHECK(!ring || !options_.memory, "[ring] sequences are split over ranks on the CPU only");
  COCA_CHECK(!ring || ring->tokens() == N_, "[decoder] planned for {} tokens; this rank holds {} of {}", N_,
             ring->tokens(), ring->split().length());
  ring_ = ring;
}

// The frequencies of this step's weights. With factor 1 there is nothing to solve.
void TrainingDecoder::prepare_clex(Context& cx, const Weights& w, int64_t seq_len) {
  if (spec_.rope_scaling.type != Scaling::kClex) return;
  const ClexOde ode = clex_ode(cx, spec_, w);
  clex_path_ = ode.path(clex_factor(spec_, seq_len));
  positions_.set_frequencies(ode.frequencies(clex_path_));
}

AttentionInputs TrainingDecoder::inputs(Context& cx, const Weights& w, TensorRef document_start,
                                        const DrawnPositions& drawn) {
  if (ring_) {
    COCA_CHECK(document_start.empty(), "[ring] packed documents are not split over ranks");
    COCA_CHECK(drawn.positions.empty(), "[ring] drawn positions are not split over ranks");
    prepare_clex(cx, w, ring_->split().length());
    return ring_->begin(positions_);
  }
  prepare_clex(cx, w, !drawn.positions.empty() && drawn.scaling_length > 0 ? drawn.scaling_length : N_);
  if (!drawn.positions.empty()) {
    const auto given = static_cast<int64_t>(drawn.positions.size());
    COCA_CHECK(given == N_ || given == B_ * N_, "[decoder] {} positions; expected [1, {}] or [{}, {}]", given, N_, B_,
               N_);
    COCA_CHECK(document_start.empty(),
               "[decoder] the positions of packed documents begin at 0; none can be drawn for them");
    return positions_.at_positions(drawn.positions, N_, drawn.scaling_length > 0 ? drawn.scaling_length : N_);
  }
  if (document_start.empty()) return positions_.at(0, N_, N_);
  COCA_CHECK(spec_.global_tokens == 0 && spec_.direction == Direction::kCausal,
             "[decoder] packed documents: {} global tokens, {} attention; expected none, and causal",
             spec_.global_tokens, enum_name(spec_.direction));
  check_ids(document_start, "document_start");
  COCA_CHECK(document_start.shape == Dims({B_, N_}), "[decoder] document_start {} must be [{}, {}]",
             document_start.shape.text(), B_, N_);
  const int32_t* start = document_start.as<int32_t>();
  for (int64_t i = 0; i < B_ * N_; ++i)  // the rows are looked up before attention checks it all
    COCA_CHECK(start[i] >= 0 && start[i] <= i % N_, "[decoder] document_start[{}, {}] is {}; expected 0 to {}", i / N_,
               i % N_, start[i], i % N_);
  return positions_.packed(document_start, N_);
}

void TrainingDecoder::forward(Context& cx, const Weights& w, const AttentionInputs& at, TensorRef ids) {
  ops::embedding_forward(cx, {.ids = ids.reshape({B_ * N_}), .table = w.embed, .y = x_[0]});
  for (size_t i = 0; i < acts_.size(); ++i) {
    if (cx.tracing()) cx.trace("hidden." + std::to_string(i), x_[i]);
    layer_forward(cx, spec_, w.layers[i], at.in_layer(spec_, i), keys(), x_[i], acts_[i], x_[i + 1]);
    trace_layer(cx, i, acts_[i]);
  }
  ops::norm_forward(cx, {.kind = spec_.norm,
                         .eps = static_cast<float>(spec_.norm_eps),
                         .x = x_.back(),
                         .w = w.norm_w,
                         .b = w.norm_b,
                         .y = normed_,
                         .stat = norm_stat_});
  if (cx.tracing()) cx.trace("hidden." + std::to_string(acts_.size()), normed_);
}

void TrainingDecoder::backward(Context& cx, const Weights& w, const AttentionInputs& at, TensorRef ids,
                               MutWeights& grads) {
  set_zero(cx, stream_);
  ops::norm_backward(cx, {.kind = spec_.norm,
                          .x = x_.back(),
                          .w = w.norm_w,
                          .stat = norm_stat_,
                          .dy = dnormed_,
                          .dx = stream_,
                          .dw = grads.norm_w,
                          .db = grads.norm_b});
  gradients_done(spec_.L);
  for (size_t i = acts_.size(), lowest = lowest_trained(grads); i-- > lowest;) {
    // The topmost layer went through the shared tensors last: they still hold what it needs.
    const AttentionInputs here = at.in_layer(spec_, i);
    if (i + 1 < acts_.size()) layer_remake(cx, spec_, w.layers[i], here, keys(), x_[i], options_.recompute, acts_[i]);
    layer_backward(cx, spec_, w.layers[i], here, ring_, x_[i], acts_[i], grad_acts_, grads.layers[i], stream_);
    gradients_done(static_cast<int64_t>(i));
  }
  if (!grads.embed.empty())
    ops::embedding_backward(cx, {.ids = ids.reshape({B_ * N_}), .dy = stream_, .dtable = grads.embed});
}

void TrainingDecoder::check(const Weights& w, TensorRef ids, TensorRef targets) const {
  check_ids(ids, "ids");
  check_ids(targets, "targets");
  COCA_CHECK(ids.shape == Dims({B_, N_}) && targets.shape == ids.shape,
             "[decoder] ids {} and targets {} must be [{}, {}]", ids.shape.text(), targets.shape.text(), B_, N_);
  COCA_CHECK(w.embed.dtype == dtype_of(options_.precision), "[decoder] the weights are {}; planned for {}",
             dtype_name(w.embed.dtype), enum_name(options_.precision));
}

// d loss / d frequency is the sum of position times d loss / d angle; from there on through the solver.
void TrainingDecoder::clex_backward(Context& cx, const Weights& w, TensorRef document_start,
                                    const DrawnPositions& drawn, MutWeights& grads) {
  if (grad_acts_.dangle.empty()) return;
  FetchedTensor fetched;
  const auto dangle = fetched.now(cx, dangle_).view<float, 3>();
  std::vector<double> dfrequencies(static_cast<size_t>(spec_.R / 2));
  for (int64_t i = 0; i < B_ * N_; ++i) {
    const int64_t b = i / N_, n = i % N_;
    const auto given = drawn.positions.size();
    const double place = given > 0                ? drawn.positions[static_cast<size_t>(i) % given]
                         : document_start.empty() ? static_cast<double>(n)
                                                  : static_cast<double>(n - document_start.as<int32_t>()[i]);
    for (size_t j = 0; j < dfrequencies.size(); ++j)
      dfrequencies[j] += place * static_cast<double>(*dangle.ptr(b, n, static_cast<int64_t>(j)));
  }
  const auto here = [&](TensorRef t) { return t.empty() ? Tensor() : to_host(cx, t); };
  Tensor up = here(grads.clex_up), down = here(grads.clex_down);
  clex_ode(cx, spec_, w).backward(clex_path_, dfrequencies, up, down);
  if (!up.empty()) transfer(cx, grads.clex_up, up);
  if (!down.empty()) transfer(cx, grads.clex_down, down);
  cx.synchronize();
}

// Zeroed, where the gradient of CLEX's network is wanted; else empty.
MutTensorRef TrainingDecoder::angle_gradient(const MutWeights& grads) {
  if (grads.clex_up.empty() && grads.clex_down.empty()) return {};
  COCA_CHECK(!ring_, "[ring] the network of CLEX is not trained over ranks; freeze it");
  if (dangle_.empty()) dangle_ = Tensor({B_, N_, spec_.R / 2}, DType::kF32, options_.memory);
  dangle_.set_zero();
  return dangle_.ref();
}

TensorRef TrainingDecoder::forward_backward(Context& cx, const Weights& w, TensorRef ids, TensorRef targets,
                                            float scale, MutWeights& grads, TensorRef document_start,
                                            const DrawnPositions& drawn) {
  check(w, ids, targets);
  const AttentionInputs at = inputs(cx, w, document_start, drawn);
  grad_acts_.dangle = angle_gradient(grads);
  forward(cx, w, at, ids);
  ops::lm_loss_forward_backward(cx, {.x = normed_, .w = w.head, .targets = targets.reshape({B_ * N_}), .nll = nll_},
                                {.scale = scale, .dx = dnormed_, .dw = grads.head});
  backward(cx, w, at, ids, grads);
  clex_backward(cx, w, document_start, drawn, grads);
  return nll_;
}

TensorRef TrainingDecoder::loss(Context& cx, const Weights& w, TensorRef ids, TensorRef targets,
                                TensorRef document_start, const DrawnPositions& drawn) {
  check(w, ids, targets);
  forward(cx, w, inputs(cx, w, document_start, drawn), ids);
  ops::lm_loss_forward(cx, {.x = normed_, .w = w.head, .targets = targets.reshape({B_ * N_}), .nll = nll_});
  return nll_;
}

}  // namespace coca::model

// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/batch_decoder.h"

#include <algorithm>
#include <utility>

#include "coca/base/count.h"
#include "coca/model/layer_attention.h"
#include "coca/model/windows.h"
#include "coca/ops/collinear.h"
#include "coca/ops/device.h"
#include "coca/ops/embedding.h"
#include "coca/ops/heads.h"
#include "coca/ops/linear.h"
#include "coca/ops/norm.h"

namespace coca::infer {

namespace {

ops::DecodeAttentionOptions attention_options(const model::ModelSpec& s, size_t layer) {
  ops::DecodeAttentionOptions o{
      .scale = s.score_scale(), .window = s.window_of(layer), .dilation = s.dilation_of(layer)};
  if (model::is_coca(s.attention)) {
    o.score = ops::Score::kCollinear;
    o.collinear = model::collinear_options(s);
  } else if (model::uses_rotary(s.attention)) {
    o.score = ops::Score::kRope;
  }
  return o;
}

}  // namespace

// The key source of a call in one layer: appends the call's tokens to the caches of the sequences and attends to these.
class BatchDecoder::Caches : public model::KeySource {
 public:
  Caches(BatchDecoder& decoder, size_t layer) : decoder_(decoder), layer_(layer) {}
  void attend(Context& cx, const model::ModelSpec&, const model::LayerTensors<TensorRef>&,
              const model::AttentionInputs&, model::LayerActs&) override {
    decoder_.attend(cx, layer_);
  }

 private:
  BatchDecoder& decoder_;
  size_t layer_;
};

BatchDecoder::BatchDecoder(const model::ModelSpec& spec, const model::Weights& weights, const BatchOptions& options)
    : spec_(spec),
      weights_(weights),
      memory_(ops::device_memory(weights.embed.device)),
      pool_(kv_pool(spec, options.cache, options.most_pages, memory_)),
      angles_(spec, &weights, memory_),
      arena_(memory_) {
  model::validate(spec);
  model::require_causal(spec, "generation");
  COCA_CHECK(!spec.pattern.forgets() || spec.pattern.sinks <= kKvPage,
             "[generate] pattern {}: {}; the cache keeps at most {}", enum_name(spec.pattern.type),
             counted(spec.pattern.sinks, "sink"), kKvPage);
}

Sequence BatchDecoder::sequence(const SequenceOptions& options) const {
  return {spec_, weights_.embed.dtype, pool_, options};
}

void BatchDecoder::check(std::span<const Piece> pieces) const {
  COCA_CHECK(!pieces.empty(), "[generate] there is nothing to append");
  for (size_t i = 0; i < pieces.size(); ++i) {
    COCA_CHECK(!pieces[i].ids.empty(), "[generate] piece {} has no ids; expected at least one", i);
    for (size_t j = 0; j < i; ++j)
      COCA_CHECK(pieces[i].sequence != pieces[j].sequence, "[generate] pieces {} and {} belong to the same sequence", j,
                 i);
  }
}

void BatchDecoder::prepare(int64_t M) {
  if (M == M_) return;
  model::bind_forward_acts(spec_, {.B = 1, .N = M, .dtype = weights_.embed.dtype}, arena_, acts_, x_, y_);
  M_ = M;
}

// The rows of the activations that belong to one sequence.
model::LayerActs BatchDecoder::rows_of(int64_t first, int64_t N) const {
  model::LayerActs a = acts_;
  for (MutTensorRef* t : {&a.q, &a.q_eff, &a.kt_in, &a.v_in, &a.kt, &a.v, &a.q_far, &a.top_scores, &a.top_keys, &a.o})
    if (!t->empty()) *t = t->narrow(1, first, N);
  for (MutTensorRef& own : a.own)
    if (!own.empty()) own = own.narrow(0, first, N);
  a.ln1 = a.ln1.narrow(0, first, N);
  if (!a.lse.empty())
    a.lse = a.lse.reshape({spec_.H * M_}).narrow(0, spec_.H * first, spec_.H * N).reshape({1, spec_.H, N});
  return a;
}

void BatchDecoder::begin(std::span<const Piece> pieces, int64_t M) {
  prepare(M);
  parts_.clear();
  int64_t first = 0;
  for (const Piece& piece : pieces) {
    Sequence& s = *piece.sequence;
    const auto N = static_cast<int64_t>(piece.ids.size());
    const int64_t scaling_length = s.scaling_length(N, piece.end);
    const bool rotates = model::transforms_keys(spec_.attention);
    Sequence::Place place = s.place(N, scaling_length, rotates ? angles_.rotation(scaling_length) : ops::Rotation{});
    parts_.push_back({.sequence = &s,
                      .first = first,
                      .N = N,
                      .held = s.cache().held() + N,
                      .globals = std::clamp<int64_t>(spec_.global_tokens - s.length(), 0, N),
                      .place = std::move(place),
                      .acts = rows_of(first, N)});
    first += N;
  }
}

TensorRef BatchDecoder::append(Context& cx, std::span<const Piece> pieces) {
  check(pieces);
  std::vector<int32_t> ids;
  for (const Piece& piece : pieces) ids.insert(ids.end(), piece.ids.begin(), piece.ids.end());
  const auto M = static_cast<int64_t>(ids.size());
  begin(pieces, M);
  ops::embedding_forward(cx, {.ids = {ids.data(), DType::kI32, {M}, kHost}, .table = weights_.embed, .y = x_});
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    Caches keys(*this, i);
    model::layer_forward(cx, spec_, weights_.layers[i], {}, keys, x_, acts_, y_);
    std::swap(x_, y_);
  }
  ops::norm_forward(cx, {.kind = spec_.norm,
                         .eps = static_cast<float>(spec_.norm_eps),
                         .x = x_,
                         .w = weights_.norm_w,
                         .b = weights_.norm_b,
                         .y = hidden()});
  for (const Part& part : parts_) part.sequence->cache_.advance(part.N);
  return hidden();
}

// Stores t (or k) and v of the new tokens un-rotated. Attention rotates them with the current angles when it reads
// them.
void BatchDecoder::store(Context& cx, size_t layer) {
  MutTensorRef keys = acts_.kt;
  if (model::is_coca(spec_.attention)) {
    keys = cx.scratch_tensor({1, M_, spec_.G, spec_.stored_width()}, DType::kF32, ScratchUser::kFoldedT);
    ops::collinear_fold(cx, model::collinear_options(spec_), {.R = spec_.R, .t = acts_.kt, .tbar = keys});
  }
  stores_.clear();
  for (const Part& part : parts_)
    stores_.push_back(part.sequence->cache_.store(static_cast<int64_t>(layer), part.held - part.N,
                                                  keys.narrow(1, part.first, part.N), part.acts.v));
  ops::kv_store(cx, stores_);
}

// What modifiers make of the new tokens' keys and values, each sequence behind its own earlier tokens.
void BatchDecoder::modify_keys(Context& cx, size_t layer) {
  if (spec_.modifiers.empty()) return;
  for (Part& part : parts_) {
    const model::AttentionInputs at = part.place.at.in_layer(spec_, layer);
    model::LayerCarry carry = part.sequence->carry(cx, layer, part.N, part.acts);
    for (const model::Stage stage : {model::Stage::kKeys, model::Stage::kDecay})
      model::modify(cx, spec_, weights_.layers[layer], at, stage, part.acts, &carry);
    part.sequence->keep(cx, layer, part.acts.kt_in, part.acts.v_in);
  }
}

void BatchDecoder::attend(Context& cx, size_t layer) {
  modify_keys(cx, layer);
  store(cx, layer);
  const auto l = static_cast<int64_t>(layer);
  const bool windowed = spec_.window_of(layer) > 0;  // without a window every token is within it
  sequences_.clear();
  for (Part& part : parts_) {
    if (part.globals > 0) attend_globals(cx, layer, part);
    const int64_t globals = part.globals, rest = part.N - globals;
    if (rest == 0) continue;
    const model::AttentionInputs inputs = part.place.at.in_layer(spec_, layer);
    const model::LayerTensors<TensorRef>& w = weights_.layers[layer];
    const MutTensorRef lse = part.acts.lse;
    model::transform_queries(cx, spec_, w, inputs, part.acts);
    const TensorRef q = part.acts.q_eff.narrow(1, globals, rest);
    const ops::KeyAngles* angles = inputs.scope.flat ? &part.sequence->flat_angles_ : &part.sequence->angles_;
    ops::DecodeFar far = windowed ? part.place.far : ops::DecodeFar{};
    if (far.tokens > 0) {
      if (inputs.scope.flat) far.angles = angles;
      // Global tokens are seen at the same positions, those that have left the window at others.
      if (spec_.global_tokens == 0) model::transform_far_queries(cx, spec_, w, inputs, part.acts);
      far.q = spec_.global_tokens > 0 ? q : part.acts.q_far.narrow(1, globals, rest);
    }
    sequences_.push_back({.q = q,
                          .angles = inputs.positions.rows.cos.empty() ? nullptr : angles,
                          .key_rows = {},
                          .cache = part.sequence->cache().view(l, part.held),
                          .decay = part.sequence->decays(layer, part.N),
                          .far = far,
                          .o = part.acts.o.narrow(1, globals, rest),
                          .lse = lse});
  }
  const TensorRef slopes = parts_.front().place.at.positions.slopes;
  ops::decode_attention(cx, attention_options(spec_, layer), {.sequences = sequences_, .slopes = slopes});
  if (spec_.pattern.top_keys_of(l) > 0)
    for (Part& part : parts_)
      middle_.attend(cx, spec_, weights_.layers[layer], part.place.at.in_layer(spec_, layer),
                     part.sequence->cache().view(l, part.held), part.acts);
  for (Part& part : parts_)
    model::modify(cx, spec_, weights_.layers[layer], part.place.at, model::Stage::kSoftmax, part.acts);
}

// Attention of the global tokens among a sequence's new rows. Each sees the global tokens up to itself.
void BatchDecoder::attend_globals(Context& cx, size_t layer, Part& part) {
  Sequence& s = *part.sequence;
  const int64_t first = s.length(), count = part.globals, seen = first + count;
  model::LayerActs& acts = part.acts;
  const auto [keys, values] = std::pair{s.globals_[layer].keys.ref(), s.globals_[layer].values.ref()};
  model::global_project(cx, spec_, weights_.layers[layer], 1, part.N, {count, count}, acts);
  ops::copy_heads(cx, acts.kt_g.narrow(1, 0, count), keys.narrow(1, first, count));
  ops::copy_heads(cx, acts.v_g.narrow(1, 0, count), values.narrow(1, first, count));
  const TensorRef q = acts.q_g.narrow(1, 0, count), k = keys.narrow(1, 0, seen);
  MutTensorRef q_eff = acts.q_g_eff.narrow(1, 0, count), k_eff = keys.narrow(1, 0, seen);
  Tensor turned;
  if (model::transforms_keys(spec_.attention)) {
    turned = Tensor({1, seen, spec_.G, spec_.score_width()}, keys.dtype, memory_);
    k_eff = turned.ref();
    model::transform_apart(cx, spec_, s.globals_at_.rows.narrow(first, count), s.globals_at_.keys(), q, k, q_eff,
                           k_eff);
  }
  ops::attention_forward(cx, {.scale = spec_.score_scale(), .query_start = first},
                         {.q = q_eff,
                          .k = k_eff,
                          .v = values.narrow(1, 0, seen),
                          .slopes = s.globals_at_.slopes,
                          .document_start = {},
                          .far = {},
                          .o = acts.o.narrow(1, 0, count),
                          .lse = {}});
}

TensorRef BatchDecoder::last_logits(Context& cx, std::span<const int64_t> pieces) {
  const auto n = static_cast<int64_t>(pieces.size());
  if (last_.empty() || last_.size(0) < n) {
    last_ = Tensor({n, spec_.C}, weights_.embed.dtype, memory_);
    logits_ = Tensor({n, spec_.V}, DType::kF32, memory_);
  }
  const MutTensorRef last = last_.ref().narrow(0, 0, n), logits = logits_.ref().narrow(0, 0, n);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t piece = pieces[static_cast<size_t>(i)];
    COCA_CHECK(piece >= 0 && piece < static_cast<int64_t>(parts_.size()),
               "[generate] piece {} does not exist; {} were appended", piece, parts_.size());
    const Part& part = parts_[static_cast<size_t>(piece)];
    transfer(cx, last.narrow(0, i, 1), hidden().narrow(0, part.first + part.N - 1, 1));
  }
  ops::linear_forward(cx, {.x = last, .w = weights_.head, .y = logits});
  return fetched_.now(cx, logits);
}

}  // namespace coca::infer

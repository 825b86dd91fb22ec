// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/cached_decoder.h"

#include <algorithm>
#include <utility>

#include "coca/base/count.h"
#include "coca/model/layer_attention.h"
#include "coca/model/windows.h"
#include "coca/ops/collinear.h"
#include "coca/ops/embedding.h"
#include "coca/ops/heads.h"
#include "coca/ops/linear.h"
#include "coca/ops/norm.h"

namespace coca::infer {

namespace {

ops::DecodeAttentionOptions attention_options(const model::ModelSpec& s, size_t layer) {
  ops::DecodeAttentionOptions o{.window = s.window_of(layer), .dilation = s.dilation_of(layer)};
  if (model::is_coca(s.attention)) {
    o.score = ops::Score::kCollinear;
    o.collinear = model::collinear_options(s);
  } else if (model::uses_rotary(s.attention)) {
    o.score = ops::Score::kRope;
  }
  return o;
}

}  // namespace

// The cache of one layer, and the call's tokens, which are added to it.
class CachedDecoder::LayerCache : public model::KeySource {
 public:
  LayerCache(CachedDecoder& decoder, size_t layer, const ops::DecodeFar& far)
      : decoder_(decoder), layer_(layer), far_(far) {}
  void attend(Context& cx, const model::ModelSpec&, const model::LayerTensors<TensorRef>&,
              const model::AttentionInputs& at, model::LayerActs&) override {
    decoder_.attend(cx, layer_, at, far_);
  }

 private:
  CachedDecoder& decoder_;
  size_t layer_;
  const ops::DecodeFar& far_;
};

CachedDecoder::CachedDecoder(const model::ModelSpec& spec, const model::Weights& weights, int64_t B, DynamicBase policy,
                             int64_t planned_length, KvType cache)
    : spec_(spec),
      weights_(weights),
      policy_(policy),
      planned_length_(planned_length),
      cache_(spec, B, cache),
      positions_(spec, &weights),
      global_positions_(spec, &weights),
      B_(B) {
  model::validate(spec);
  model::require_causal(spec, "generation");
  for (int64_t i = 0; i < spec.L && spec.global_tokens > 0; ++i) {
    global_keys_.emplace_back(Dims{B, spec.global_tokens, spec.G, spec.key_width()}, weights.embed.dtype);
    global_values_.emplace_back(Dims{B, spec.global_tokens, spec.G, spec.D}, weights.embed.dtype);
  }
  COCA_CHECK(!spec.pattern.forgets() || spec.pattern.sinks <= kKvPage,
             "[generate] pattern {}: {}; the cache keeps at most {}", enum_name(spec.pattern.type),
             counted(spec.pattern.sinks, "sink"), kKvPage);
  COCA_CHECK(policy == DynamicBase::kStep || planned_length > 0,
             "[generate] a base fixed per request needs the planned length, found {}", planned_length);
}

void CachedDecoder::prepare(int64_t N) {
  if (N == N_) return;
  model::bind_forward_acts(spec_, {.B = B_, .N = N, .dtype = weights_.embed.dtype}, arena_, acts_, x_, y_);
  N_ = N;
}

// The angles at which the cached keys are seen: those in the window (or all), and those beyond it.
void CachedDecoder::build_angles(int64_t N, const ops::Rotation& rotation) {
  const int64_t S = cache_.length() + N, held = cache_.held() + N;
  angles_.build(rotation, held,
                {.start = static_cast<double>(cache_.forgotten()), .origin = model::growth_origin(spec_, S - N, N)});
  const model::AttentionPattern& pattern = spec_.pattern;
  if (!pattern.far()) return;
  ops::Rotation far = rotation;
  const bool all_alike = pattern.type == model::Pattern::kLmInfinite || pattern.type == model::Pattern::kReRope;
  if (all_alike) std::fill(far.frequencies.begin(), far.frequencies.end(), 0.0);  // at position 0
  far_angles_.build(far, pattern.far_tokens(held),
                    {.group = pattern.type == model::Pattern::kSelfExtend ? pattern.group : 1});
}

ops::DecodeFar CachedDecoder::far_side(const model::AttentionInputs& inputs, int64_t N) const {
  ops::DecodeFar far;
  if (!spec_.pattern.far()) return far;
  far.tokens = spec_.pattern.far_tokens(cache_.held() + N);
  const auto& [at, scope] = inputs;
  far.rows = at.far_rows;
  far.angles = at.far_rows.cos.empty() ? nullptr : &far_angles_;
  far.most_distance = scope.far_most_distance;
  far.most_position = scope.far_most_position;
  far.forgotten = cache_.forgotten();
  return far;
}

// Tokens that stand behind the global ones and see them beyond their window, at the same positions.
ops::DecodeFar CachedDecoder::global_side(const model::Positions& at, int64_t N) const {
  ops::DecodeFar far;
  const int64_t S = cache_.length() + N, first = std::max(cache_.length(), spec_.global_tokens);
  far.tokens = spec_.global_tokens;
  far.range = ops::FarRange::kAll;
  if (first < S) far.rows = at.rows.narrow(first - cache_.length(), S - first);
  far.angles = at.rows.cos.empty() ? nullptr : &angles_;
  return far;
}

// The rows of global tokens among the new ones: `count` of them, which see the global tokens up to themselves.
void CachedDecoder::attend_globals(Context& cx, size_t layer, int64_t count) {
  const int64_t first = cache_.length(), seen = first + count;
  Tensor &keys = global_keys_[layer], &values = global_values_[layer];
  model::global_project(cx, spec_, weights_.layers[layer], B_, N_, {count, count}, acts_);
  ops::copy_heads(cx, acts_.kt_g.narrow(1, 0, count), keys.ref().narrow(1, first, count));
  ops::copy_heads(cx, acts_.v_g.narrow(1, 0, count), values.ref().narrow(1, first, count));
  const TensorRef q = acts_.q_g.narrow(1, 0, count), k = keys.ref().narrow(1, 0, seen);
  MutTensorRef q_eff = acts_.q_g_eff.narrow(1, 0, count), k_eff = keys.ref().narrow(1, 0, seen);
  Tensor turned;
  if (model::transforms_keys(spec_.attention)) {
    turned = Tensor({B_, seen, spec_.G, spec_.D}, keys.dtype());
    k_eff = turned.ref();
    model::transform_apart(cx, spec_, global_at_.rows.narrow(first, count), global_at_.keys(), q, k, q_eff, k_eff);
  }
  ops::attention_forward(cx, {.query_start = first},
                         {.q = q_eff,
                          .k = k_eff,
                          .v = values.ref().narrow(1, 0, seen),
                          .slopes = global_at_.slopes,
                          .document_start = {},
                          .far = {},
                          .o = acts_.o.narrow(1, 0, count),
                          .lse = {}});
}

// The new tokens' t (or k) and v go into the cache un-rotated; attention reads it back with today's angles.
void CachedDecoder::attend(Context& cx, size_t layer, const model::AttentionInputs& inputs, const ops::DecodeFar& far) {
  const model::Positions& at = inputs.positions;
  const auto l = static_cast<int64_t>(layer);
  const int64_t N = N_, held = cache_.held() + N;
  MutTensorRef keys = acts_.kt;
  if (model::is_coca(spec_.attention)) {
    keys = cx.scratch_tensor({B_, N, spec_.G, spec_.D / 2}, DType::kF32, ScratchUser::kFoldedT);
    ops::collinear_fold(cx, model::collinear_options(spec_), {.R = spec_.R, .t = acts_.kt, .tbar = keys});
  }
  cache_.write(cx, l, held - N, keys, acts_.v);
  const int64_t globals = std::clamp<int64_t>(spec_.global_tokens - cache_.length(), 0, N);
  if (globals > 0) attend_globals(cx, layer, globals);
  if (globals == N) return;
  const bool windowed = spec_.window_of(layer) > 0;  // without a window nothing is beyond it
  ops::decode_attention(cx, attention_options(spec_, layer),
                        {.q = acts_.q.narrow(1, globals, N - globals),
                         .rows = at.rows.narrow(globals, N - globals),
                         .turn = at.turn,
                         .angles = at.rows.cos.empty() ? nullptr : &angles_,
                         .key_rows = {},
                         .cache = cache_.view(l, held),
                         .slopes = at.slopes,
                         .far = windowed ? far : ops::DecodeFar{},
                         .o = acts_.o.narrow(1, globals, N - globals),
                         .lse = acts_.lse});
  if (spec_.pattern.top_keys_of(l) > 0) middle_.attend(cx, spec_, inputs, cache_.view(l, held), acts_);
}

void CachedDecoder::truncate(int64_t length) {
  const int64_t behind = cache_.forgotten() > 0 ? cache_.forgotten() + kKvPage : 0;
  COCA_CHECK(behind == 0 || length + 1 - spec_.pattern.window >= behind,
             "[generate] cannot go back to {}: the {} in front of {} that their window reaches are forgotten",
             counted(length, "token"), cache_.forgotten(), behind);
  cache_.truncate(length);
}

// Keys that no query from the next one on will see make room, a page at a time.
void CachedDecoder::forget() {
  if (spec_.pattern.forgets()) cache_.forget_before(cache_.length() + 1 - spec_.pattern.window);
}

TensorRef CachedDecoder::append(Context& cx, TensorRef ids, int64_t end) {
  check_ids(ids);
  const int64_t N = ids.size(1), S = cache_.length() + N;
  prepare(N);
  forget();
  cache_.reserve(cache_.held() + N);
  const int64_t reached = std::max(end, S);
  const int64_t scaling_length = policy_ == DynamicBase::kRequest ? std::max(planned_length_, reached) : reached;
  const bool rotates = model::transforms_keys(spec_.attention);
  const ops::Rotation rotation = rotates ? positions_.rotation(scaling_length) : ops::Rotation{};
  const model::AttentionInputs at = positions_.at(S - N, N, scaling_length, rotation);
  if (rotates) build_angles(N, rotation);
  const ops::DecodeFar far = spec_.global_tokens > 0 ? global_side(at.positions, N) : far_side(at, N);
  if (cache_.length() < spec_.global_tokens)
    global_at_ = global_positions_.at(0, std::min(S, spec_.global_tokens), scaling_length).positions;

  ops::embedding_forward(cx, {.ids = ids.reshape({B_ * N}), .table = weights_.embed, .y = x_});
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    LayerCache keys(*this, i, far);
    model::layer_forward(cx, spec_, weights_.layers[i], at, keys, x_, acts_, y_);
    std::swap(x_, y_);
  }
  ops::norm_forward(cx, {.kind = spec_.norm,
                         .eps = static_cast<float>(spec_.norm_eps),
                         .x = x_,
                         .w = weights_.norm_w,
                         .b = weights_.norm_b,
                         .y = hidden()});
  cache_.advance(N);
  return TensorRef(hidden()).reshape({B_, N, spec_.C});
}

void CachedDecoder::check_ids(TensorRef ids) const {
  COCA_CHECK(ids.rank() == 2 && ids.size(0) == B_ && ids.size(1) >= 1, "[generate] ids {} must be [{}, N] with N >= 1",
             ids.shape.text(), B_);
}

void CachedDecoder::prefill(Context& cx, TensorRef ids, int64_t piece) {
  COCA_CHECK(piece >= 1, "[generate] pieces of {} tokens; expected at least 1", piece);
  check_ids(ids);
  const int64_t N = ids.size(1), end = cache_.length() + N;
  Tensor part;  // the columns of a piece, packed
  for (int64_t n = 0; n < N; n += piece) {
    const int64_t count = std::min(piece, N - n);
    if (count == N) {
      append(cx, ids);
      continue;
    }
    part = Tensor({B_, count}, DType::kI32);
    for (int64_t b = 0; b < B_; ++b)
      std::copy_n(ids.as<int32_t>() + b * N + n, count, part.ref().as<int32_t>() + b * count);
    append(cx, part, end);
  }
}

TensorRef CachedDecoder::last_logits(Context& cx) {
  COCA_CHECK(N_ >= 1, "[generate] no token has been appended yet");
  if (logits_.empty()) logits_ = Tensor({B_, spec_.V});
  const TensorRef last = TensorRef(hidden()).reshape({B_, N_, spec_.C}).select(1, N_ - 1);  // [B, C], strided rows
  ops::linear_forward(cx, {.x = last, .w = weights_.head, .y = logits_});
  return logits_.ref();
}

}  // namespace coca::infer

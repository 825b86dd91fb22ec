// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/middle_keys.h"

#include <algorithm>

#include "coca/model/layer_attention.h"
#include "coca/ops/collinear.h"
#include "coca/ops/kv_store.h"
#include "coca/ops/rope.h"

namespace coca::infer {

namespace {

// The first n tokens of a page's buffer, as kv_load writes them.
MutTensorRef first(Tensor& page, int64_t n) { return page.ref().narrow(1, 0, n); }

}  // namespace

void MiddleKeys::prepare(Context& cx, const model::ModelSpec& s, const model::Positions& at, const KvLayout& l) {
  if (stored_.empty()) {
    stored_ = Tensor({1, kKvPage, l.G, l.W}, DType::kF32, cx.memory());
    placed_ = Tensor({1, kKvPage, l.G, s.score_width()}, DType::kF32, cx.memory());
    values_ = Tensor({1, kKvPage, l.G, l.D}, DType::kF32, cx.memory());
  }
  if (!model::transforms_keys(s.attention)) return;
  const int64_t half = at.far_key_rows.cos.size(2);
  if (cos_.empty()) {
    cos_ = SentTensor({1, kKvPage, half}, DType::kF32, cx.memory());
    sin_ = SentTensor({1, kKvPage, half}, DType::kF32, cx.memory());
  }
  // All far keys are at position 0, so one row is enough. It includes the scaling's amplitude.
  const auto repeat = [&](TensorRef rows, SentTensor& to) {
    const float* row = fetched_.now(cx, rows.narrow(1, 0, 1)).as<float>();
    for (int64_t n = 0; n < kKvPage; ++n) std::copy_n(row, half, to.host().as<float>() + n * half);
    to.send();
  };
  repeat(at.far_key_rows.cos, cos_);
  repeat(at.far_key_rows.sin, sin_);
}

// The stored keys, transformed as attention sees them.
TensorRef MiddleKeys::placed(Context& cx, const model::ModelSpec& s, int64_t tokens) {
  const TensorRef stored = first(stored_, tokens);
  if (!model::transforms_keys(s.attention)) return stored;
  const MutTensorRef out = first(placed_, tokens);
  const ops::RopeRows rows = ops::RopeRows{cos_.ref(), sin_.ref()}.narrow(0, tokens);
  if (model::is_coca(s.attention))
    ops::collinear_key(cx, model::collinear_options(s), {.rows = rows, .tbar = stored, .k_eff = out});
  else
    ops::rope_forward(cx, {.rows = rows, .x = stored, .y = out});
  return out;
}

void MiddleKeys::attend(Context& cx, const model::ModelSpec& s, const model::LayerTensors<TensorRef>& w,
                        const model::AttentionInputs& inputs, const KvView& cache, model::LayerActs& acts) {
  const auto& [at, scope] = inputs;
  const int64_t N = acts.q.size(1), S = cache.length,
                last = S - s.pattern.window;  // one past the last key that the last query may choose
  prepare(cx, s, at, cache.layout);
  model::transform_far_queries(cx, s, w, inputs, acts);
  const ops::TopKeysOptions options = model::middle_options(s, scope, S - N);
  // The first page is always processed, since it initializes the lists.
  for (int64_t page = 0; page == 0 || page < last; page += kKvPage) {
    const int64_t n = std::min(kKvPage, S - page);
    ops::kv_load(cx, {.cache = cache, .first = page, .keys = first(stored_, n), .values = {}});
    ops::top_keys_find(cx, options,
                       {.q = acts.q_far,
                        .k = placed(cx, s, n),
                        .key_start = page,
                        .slopes = at.slopes,
                        .scores = acts.top_scores,
                        .keys = acts.top_keys});
  }
  const int32_t* keys = fetched_.now(cx, acts.top_keys).as<int32_t>();
  for (int64_t page = 0; page < last; page += kKvPage) {
    const int64_t n = std::min(kKvPage, S - page);
    if (std::none_of(keys, keys + acts.top_keys.numel(), [&](int32_t key) { return key >= page && key < page + n; }))
      continue;
    ops::kv_load(cx, {.cache = cache, .first = page, .keys = {}, .values = first(values_, n)});
    ops::top_keys_add(cx, {.scores = acts.top_scores,
                           .keys = acts.top_keys,
                           .v = first(values_, n),
                           .key_start = page,
                           .o = acts.o,
                           .lse = acts.lse});
  }
}

}  // namespace coca::infer

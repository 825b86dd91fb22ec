// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <vector>

#include "coca/kernels/args/head_access.h"
#include "coca/kernels/ref/decode_attention.h"
#include "coca/kernels/ref/kv_store.h"
#include "coca/kernels/ref/rows.h"
#include "coca/tensor/float_copies.h"

namespace coca::ref {

namespace {

using Angle = DecodeSide<float>::Angle;

Angle of_rows(const ops::RopeRows& rows, const float* ops::AngleRow::*table) {
  return [&rows, table](int64_t b, int64_t n, int64_t j) { return (ops::AngleRow(rows, b, n).*table)[j]; };
}

enum class Part : uint8_t { kCos, kSin };
Angle of_keys(const ops::KeyAngles& angles, Part part) {
  return [&angles, part](int64_t, int64_t s, int64_t j) {
    const int64_t start = s / kKvTile * angles.half() + j, offset = j * kKvTile + kv_lane(s % kKvTile);
    const float c0 = angles.start_cos()[start], s0 = angles.start_sin()[start];
    const float c1 = angles.offset_cos()[offset], s1 = angles.offset_sin()[offset];
    return part == Part::kCos ? c0 * c1 - s0 * s1 : s0 * c1 + c0 * s1;
  };
}

void set_key_angles(DecodeSide<float>& side, const ops::KeyAngles* angles, const ops::RopeRows& key_rows) {
  side.key_cos = angles ? of_keys(*angles, Part::kCos) : of_rows(key_rows, &ops::AngleRow::cos);
  side.key_sin = angles ? of_keys(*angles, Part::kSin) : of_rows(key_rows, &ops::AngleRow::sin);
}

// The tokens of the window (or all).
DecodeSide<float> near_side(const ops::DecodeAttentionOptions& o, const ops::DecodeSequence& a,
                            const AttentionSpec& spec, TensorRef q) {
  DecodeSide<float> side{.spec = spec, .tokens = a.cache.length, .q = q.view<float, 4>()};
  side.spec.window = o.window;
  if (a.far.tokens > 0 && a.far.range == ops::FarRange::kAll) side.spec.first = a.far.tokens;
  if (!o.dilation.empty()) side.spec.dilation = o.dilation.data();
  set_key_angles(side, a.angles, a.key_rows);
  if (a.decay.empty()) return side;
  const int64_t H = a.decay.size(0), S = a.cache.length, N = a.q.size(1), stride = a.decay.stride(0);
  side.decay = {a.decay.as<float>(), {1, H, S}, {H * stride, stride, 1}};
  side.query_decay = {a.decay.as<float>() + S - N, {1, H, N}, {H * stride, stride, 1}};
  return side;
}

DecodeSide<float> far_side(const ops::DecodeAttentionOptions& o, const ops::DecodeSequence& a,
                           const AttentionSpec& spec, TensorRef q) {
  DecodeSide<float> side{.spec = spec, .tokens = a.far.tokens, .q = q.view<float, 4>()};
  side.spec.causal = a.far.range != ops::FarRange::kAll;
  side.spec.hidden = o.window;
  side.spec.most_distance = a.far.most_distance;
  side.spec.most_position = a.far.most_position;
  side.spec.forgotten = a.far.forgotten;
  set_key_angles(side, a.far.angles, a.key_rows);
  return side;
}

// All tokens of the cache as floats.
void load_cache(const KvView& cache, MutTensorRef keys, MutTensorRef values) {
  const KvLayout& l = cache.layout;
  for (int64_t token = 0; token < cache.length; ++token)
    for (int64_t g = 0; g < l.G; ++g) {
      auto* run = const_cast<std::byte*>(cache.run(g, token));  // slots serve both ways; only read here
      read_head(l.type, key_slot(l, run, token % kKvPage),
                {keys.view<float, 4>().ptr(0, token, g), static_cast<size_t>(l.W)});
      read_head(l.type, value_slot(l, run, token % kKvPage),
                {values.view<float, 4>().ptr(0, token, g), static_cast<size_t>(l.D)});
    }
}

void attend(const ops::DecodeAttentionOptions& options, TensorRef slopes, const ops::DecodeSequence& a) {
  const KvLayout& l = a.cache.layout;
  const int64_t S = a.cache.length, N = a.q.size(1), E = a.q.size(3),
                half = options.score == ops::Score::kDot ? 0
                       : a.angles                        ? a.angles->half()
                                                         : a.key_rows.cos.size(2);
  const FloatInput q(a.q), far_q(a.far.tokens > 0 ? a.far.q : a.q);
  const FloatOutput o(a.o);
  Tensor keys({1, S, l.G, l.W}), values({1, S, l.G, l.D});
  load_cache(a.cache, keys, values);
  const AttentionSpec spec{.scale = options.scale != 0.0f ? options.scale : 1.0f / std::sqrt(static_cast<float>(E)),
                           .query_start = S - N,
                           .slopes = slopes.empty() ? nullptr : slopes.as<float>()};
  std::vector<DecodeSide<float>> sides{near_side(options, a, spec, q.ref())};
  if (a.far.tokens > 0) sides.push_back(far_side(options, a, spec, far_q.ref()));
  decode_attention<float>(sides, decode_keys(options, 2 * half, E), TensorRef(keys).view<float, 4>(),
                          TensorRef(values).view<float, 4>(), o.ref().view<float, 4>(),
                          a.lse.empty() ? TensorView<float, 3>{} : a.lse.view<float, 3>());
  o.store();
}

void forward(Context&, const ops::DecodeAttentionOptions& options, const ops::DecodeAttention& a) {
  for (const ops::DecodeSequence& sequence : a.sequences) attend(options, a.slopes, sequence);
}

}  // namespace

const ops::DecodeAttentionImpl decode_attention_row{.name = "ref", .run = {forward}};

}  // namespace coca::ref

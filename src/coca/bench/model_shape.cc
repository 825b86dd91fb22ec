// SPDX-License-Identifier: Apache-2.0
#include "coca/bench/model_shape.h"

#include <algorithm>
#include <cmath>

#include "coca/base/rng.h"
#include "coca/train/config.h"

namespace coca::bench {

namespace {

struct Sizes {
  int64_t layers, width, heads, vocab, length, batch;
};

Sizes sizes_of(Preset preset) {
  switch (preset) {
    case Preset::k0_86m: return {4, 128, 4, 272, 128, 32};
    case Preset::k10m: return {8, 320, 10, 272, 256, 16};
    case Preset::k100m: return {12, 768, 12, 8192, 512, 4};
    case Preset::k350m: return {24, 1024, 16, 100864, 512, 1};
  }
  fail(ErrorKind::kInternal, "[bench] preset {} has no sizes", static_cast<int>(preset));
}

}  // namespace

void check_heads(const HeadShape& s) {
  COCA_CHECK(s.heads >= 1, "heads is {}; expected at least 1", s.heads);
  COCA_CHECK(s.kv_heads >= 0 && (s.kv_heads == 0 || s.heads % s.kv_heads == 0),
             "kv_heads is {}; expected a divisor of heads, {}, or 0 (as many)", s.kv_heads, s.heads);
  COCA_CHECK(s.head_dim >= 2 && s.head_dim % 2 == 0, "head_dim is {}; expected an even number of at least 2",
             s.head_dim);
}

Window preset_window(Preset preset) { return {sizes_of(preset).length, sizes_of(preset).batch}; }

model::ModelSpec make_spec(const ModelShape& shape, model::AttentionKind kind, int64_t length) {
  const Sizes s = sizes_of(shape.preset);
  const auto chosen = [](const char* name, int64_t given, int64_t otherwise) {
    COCA_CHECK(given >= 0, "{} is {}; expected 0 (the preset's) or more", name, given);
    return given > 0 ? given : otherwise;
  };
  train::TrainConfig c;
  c.architecture = shape.architecture;
  c.attention = kind;
  c.layers = chosen("layers", shape.layers, s.layers);
  c.width = chosen("width", shape.width, s.width);
  c.heads = chosen("heads", shape.heads, s.heads);
  c.kv_heads = chosen("kv_heads", shape.kv_heads, 0);
  c.mlp_width = chosen("mlp_width", shape.mlp_width, 0);
  c.length = length;
  train::check_config(c);
  return train::make_spec(c, chosen("vocab_size", shape.vocab, s.vocab), std::nullopt, std::nullopt);
}

model::ModelSpec make_check_spec(const ModelShape& shape, model::AttentionKind kind, int64_t length) {
  const model::ModelSpec whole = make_spec(shape, kind, length);
  ModelShape small = shape;
  small.layers = small.heads = 2;
  small.kv_heads = whole.G < whole.H ? 1 : 2;
  small.width = 2 * whole.D;
  small.mlp_width = 0;
  small.vocab = 61;
  model::ModelSpec spec = make_spec(small, kind, length);
  spec.init_std = 1 / std::sqrt(static_cast<double>(spec.C));  // activations and scores of about one: nothing hides
  return spec;
}

model::ParamStore random_params(const model::ModelSpec& spec, model::Precision precision, DeviceMemory* memory) {
  model::ParamStore params(spec, precision);
  model::initialise(spec, 1, params);
  params.move_to(memory);
  return params;
}

ParamsOfKinds::ParamsOfKinds(const ModelShape& shape, std::span<const model::AttentionKind> kinds, int64_t length,
                             model::Precision precision, DeviceMemory* memory) {
  for (const model::AttentionKind kind : kinds) {
    const model::ModelSpec spec = make_spec(shape, kind, length);
    if (!sets_.contains(spec.t_width)) sets_.emplace(spec.t_width, random_params(spec, precision, memory));
  }
}

int64_t ParamsOfKinds::bytes_of_others(const model::ModelSpec& spec) const {
  int64_t bytes = 0;
  for (const auto& [width, params] : sets_)
    if (width != spec.t_width) bytes += static_cast<int64_t>(params.flat().bytes());
  return bytes;
}

std::vector<int32_t> random_ids(int64_t n, int64_t vocabulary, uint64_t seed) {
  Rng rng(seed, 0x1d5);
  std::vector<int32_t> ids(static_cast<size_t>(n));
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocabulary)));
  return ids;
}

std::vector<model::AttentionKind> kinds_of(std::span<const model::AttentionKind> kind,
                                           std::optional<model::AttentionKind> against) {
  std::vector<model::AttentionKind> kinds;
  if (against) kinds.push_back(*against);
  for (const model::AttentionKind k : kind)
    if (std::ranges::find(kinds, k) == kinds.end()) kinds.push_back(k);
  COCA_CHECK(!kinds.empty(), "attention: none given");
  return kinds;
}

}  // namespace coca::bench

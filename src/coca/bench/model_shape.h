// coca/bench/model_shape.h - the random models that `coca bench train|eval|decode` run: presets, and sizes
// that replace a preset's.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <span>

#include "coca/model/params.h"
#include "coca/tensor/tensor.h"

namespace coca::bench {

// 0.86m and 10m: `coca study`'s tiny preset and configs/train-10m.json; 350m: the paper's shape (509M with
// its vocabulary).
enum class Preset : uint8_t { k0_86m, k10m, k100m, k350m };

struct ModelShape {
  Preset preset = Preset::k10m;
  model::Architecture architecture = model::Architecture::kGptNeoX;
  int64_t layers = 0, width = 0, heads = 0, kv_heads = 0, mlp_width = 0, vocab = 0;

  template <class V>
  void visit(V&& v) {
    v.group("Model");
    v("preset", "sizes that are not given: 4 x 128, 8 x 320, 12 x 768 or 24 x 1024 (vocabulary 100864)", preset);
    v("architecture", "block form", architecture);
    v("layers", "decoder layers; default: the preset's", layers);
    v("width", "hidden size; default: the preset's", width);
    v("heads", "query heads; default: the preset's", heads);
    v("kv_heads", "key/value heads; default: as many as heads", kv_heads);
    v("mlp_width", "mlp hidden size; default: as `coca train` chooses", mlp_width);
    v("vocab_size", "vocabulary; input and output embeddings are two matrices; default: the preset's", vocab);
  }
};

struct HeadShape {
  int64_t heads, kv_heads, head_dim;  // kv_heads 0: as many as heads
};
void check_heads(const HeadShape&);

struct Window {
  int64_t length, batch;
};
Window preset_window(Preset);  // the tokens of one training step

// Throws Error naming the first invalid size.
model::ModelSpec make_spec(const ModelShape&, model::AttentionKind, int64_t length);
// Two layers of two heads of the same form, for checking answers.
model::ModelSpec make_check_spec(const ModelShape&, model::AttentionKind, int64_t length);

// Parameters as initialise() draws them from seed 1, in this memory (null: the host's).
model::ParamStore random_params(const model::ModelSpec&, model::Precision = model::Precision::kF32,
                                DeviceMemory* = nullptr);
// Such parameters of several kinds of one shape. Kinds share them where their tensors have the same shapes: CoCA's T is
// narrower than K, so two sets serve all.
class ParamsOfKinds {
 public:
  ParamsOfKinds(const ModelShape&, std::span<const model::AttentionKind>, int64_t length, model::Precision,
                DeviceMemory*);
  const model::ParamStore& of(const model::ModelSpec& spec) const { return sets_.at(spec.t_width); }
  int64_t bytes_of_others(const model::ModelSpec&) const;

 private:
  std::map<model::TWidth, model::ParamStore> sets_;
};
std::vector<int32_t> random_ids(int64_t n, int64_t vocabulary, uint64_t seed);

// The kinds to run, each once; the one to compare with comes first.
std::vector<model::AttentionKind> kinds_of(std::span<const model::AttentionKind> kind,
                                           std::optional<model::AttentionKind> against);

}  // namespace coca::bench

COCA_ENUM_NAMES(coca::bench::Preset, "preset", {coca::bench::Preset::k0_86m, "0.86m"},
                {coca::bench::Preset::k10m, "10m"}, {coca::bench::Preset::k100m, "100m"},
                {coca::bench::Preset::k350m, "350m"})

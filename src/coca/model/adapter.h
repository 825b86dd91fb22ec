// coca/model/adapter.h - LoRA adapters (Hu et al. 2021): low-rank additions to a model's matrices, trained in their
// place, and merged into them. Their files: formats/adapter_file.h.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "coca/model/params.h"

namespace coca::model {

struct LoraSettings {
  enum class Scaling : uint8_t { kByRank, kByRootOfRank };  // alpha / r, alpha / sqrt(r) ("rslora")

  int64_t rank = 8;
  double alpha = 8.0;
  double dropout = 0.0;
  Scaling scaling = Scaling::kByRank;
  std::string base;                   // "base_model_name_or_path": for readers, not opened
  std::string base_fingerprint = {};  // of the model it was trained on (formats::ModelFolder); empty: unknown
};

// One matrix with an addition.
struct LoraTarget {
  std::string module;  // "model.layers.0.self_attn.q_proj"
  size_t layer = 0;
  LoraTensors<TensorRef> LayerLora<TensorRef>::*weights;
  LoraTensors<MutTensorRef> LayerLora<MutTensorRef>::*grads;
  int64_t in = 0, out = 0;
  int64_t rank = 0;
  double alpha = 0;  // the settings', unless a file says otherwise for this module
};

// The modules of a model that may have one, in file order: the matrices of its layers.
std::vector<LoraTarget> lora_modules(const ModelSpec&);

class Adapter {
 public:
  Adapter(const ModelSpec&, const LoraSettings&, std::vector<LoraTarget>);

  const ModelSpec& spec() const { return spec_; }
  const LoraSettings& settings() const { return settings_; }
  const std::vector<LoraTarget>& targets() const { return targets_; }
  // A [r, in] and B [out, r] of every target, f32; names as in PEFT's files without "base_model.model.".
  TensorStore& tensors() { return tensors_; }
  const TensorStore& tensors() const { return tensors_; }
  float scale(const LoraTarget&) const;

  // As PEFT: A uniform in +-1/sqrt(in), B zero. Each A draws from its own stream of the seed.
  void initialise(uint64_t seed);
  // Makes the layers of `weights` (or of gradients) refer to the tensors of a store with this adapter's list. Without
  // dropout.
  void bind(const TensorStore&, Weights&) const;
  void bind_gradients(TensorStore&, MutWeights&) const;
  // Dropout under one key for this pass over these weights; each matrix has its own mask.
  void set_dropout(uint64_t key, Weights&) const;
  void clear_dropout(Weights&) const;

 private:
  const ParamInfo& info_a(size_t target) const { return tensors_.infos()[2 * target]; }
  const ParamInfo& info_b(size_t target) const { return tensors_.infos()[2 * target + 1]; }

  ModelSpec spec_;
  LoraSettings settings_;
  std::vector<LoraTarget> targets_;
  TensorStore tensors_;
};

// Targets by patterns over module names (select.h), such as "*q_proj"; rank and alpha are the settings'.
std::vector<LoraTarget> select_lora_targets(const ModelSpec&, const LoraSettings&,
                                            const std::vector<std::string>& patterns);

// The parameters plus scale * B A, in fp32, rounded to their type; all on the host.
void merge_adapter(const Adapter&, ParamStore&);

}  // namespace coca::model

COCA_ENUM_NAMES(coca::model::LoraSettings::Scaling, "lora_scaling",
                {coca::model::LoraSettings::Scaling::kByRank, "rank"},
                {coca::model::LoraSettings::Scaling::kByRootOfRank, "root-of-rank"})

// tests/support/tiny_model.h - small models with random weights, one for every choice a spec can make.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "coca/base/rng.h"
#include "coca/model/params.h"

namespace coca::test {

using model::AttentionKind;

inline const std::vector<AttentionKind>& attention_kinds() {
  static const std::vector<AttentionKind> kinds = [] {
    std::vector<AttentionKind> all;
    for (const auto& entry : EnumTraits<AttentionKind>::names()) all.push_back(entry.value);
    return all;
  }();
  return kinds;
}

inline model::ModelSpec tiny_neox(AttentionKind kind) {
  model::ModelSpec s;
  s.architecture = model::Architecture::kGptNeoX;
  s.attention = kind;
  s.V = 23;
  s.C = 24;
  s.F = 40;
  s.L = 2;
  s.H = 3;
  s.G = 3;
  s.D = 8;
  s.R = s.plane_dims();
  s.max_position = 8;
  s.init_std = 0.3;
  return s;
}

// Grouped queries and an odd D / 2.
inline model::ModelSpec tiny_llama(AttentionKind kind) {
  model::ModelSpec s;
  s.architecture = model::Architecture::kLlama;
  s.attention = kind;
  s.norm = ops::NormKind::kRmsNorm;
  s.mlp = model::Mlp::kSwiGlu;
  s.residual = model::ResidualKind::kSequential;
  s.qkv = model::Qkv::kSeparate;
  s.attention_bias = s.output_bias = s.mlp_bias = model::Bias::kNone;
  s.V = 23;
  s.C = 24;
  s.F = 36;
  s.L = 2;
  s.H = 4;
  s.G = 2;
  s.D = 6;
  s.R = s.plane_dims();
  s.max_position = 8;
  s.init_std = 0.3;
  return s;
}

struct NamedSpec {
  std::string name;
  model::ModelSpec spec;
  friend void PrintTo(const NamedSpec& s, std::ostream* out) { *out << s.name; }
};

// Head norms, and a window in one of the layers.
inline model::ModelSpec tiny_qwen3(AttentionKind kind) {
  model::ModelSpec s = tiny_llama(kind);
  s.architecture = model::Architecture::kQwen3;
  s.head_norm = model::HeadNorm::kRms;
  s.D = 10;
  s.R = s.plane_dims();
  s.layer_window = {0, 3};
  return s;
}

// All scalings except CLEX, whose frequencies depend on weights that a spec does not contain.
inline std::vector<model::Scaling> weightless_scalings() {
  std::vector<model::Scaling> all;
  for (const auto& entry : EnumTraits<model::Scaling>::names())
    if (entry.value != model::Scaling::kClex) all.push_back(entry.value);
  return all;
}

// Every scaling, with parameters that reach each branch in the short contexts of tests.
inline model::RopeScaling tiny_scaling(model::Scaling type, int64_t pairs) {
  model::RopeScaling r{.type = type, .factor = type == model::Scaling::kNone ? 1.0 : 4.0};
  if (type == model::Scaling::kLlama3) {
    r.factor = 8;
    r.original_max_position = 16;
  }
  if (type == model::Scaling::kYarn || type == model::Scaling::kYarnPaper) {
    r.beta_fast = 1.2;
    r.beta_slow = 0.01;
  }
  for (int64_t j = 0; type == model::Scaling::kLongRope && j < pairs; ++j) {
    r.short_factor.push_back(1.0 + 0.125 * static_cast<double>(j));
    r.long_factor.push_back(1.5 + static_cast<double>(j));
  }
  return r;
}

// Dynamic NTK and longrope: the frequencies of a part of a sequence differ from those of the whole.
inline bool goes_by_length(model::Scaling type) {
  return type == model::Scaling::kDynamic || type == model::Scaling::kLongRope;
}

// Combines the scalings that do not depend on the length with attention kinds, each in one architecture.
inline std::vector<NamedSpec> scaled_specs() {
  std::vector<NamedSpec> all;
  for (const model::Scaling scaling : weightless_scalings())
    for (const AttentionKind kind : {AttentionKind::kRope, AttentionKind::kCocaSlack, AttentionKind::kCocaStrict}) {
      if (scaling == model::Scaling::kNone || goes_by_length(scaling)) continue;
      model::ModelSpec s = kind == AttentionKind::kCocaStrict ? tiny_neox(kind) : tiny_llama(kind);
      s.rope_scaling = tiny_scaling(scaling, s.R / 2);
      std::string name = std::string(enum_name(scaling)) + "_" + std::string(enum_name(kind));
      for (char& c : name) c = c == '-' ? '_' : c;
      all.push_back({name, s});
    }
  return all;
}

// T of half width: every form of CoCA, fused and grouped, with partial rotary, both folds and biases.
inline std::vector<NamedSpec> half_t_specs() {
  std::vector<NamedSpec> all;
  const auto add = [&](const std::string& name, model::ModelSpec s) {
    s.t_width = model::TWidth::kHalf;
    all.push_back({"half_t_" + name, s});
  };
  for (const AttentionKind kind : {AttentionKind::kCocaSlack, AttentionKind::kCocaStrict, AttentionKind::kCocaTied,
                                   AttentionKind{model::Score::kSlack, model::Encoding::kXpos},
                                   AttentionKind{model::Score::kSlack, model::Encoding::kAlibi},
                                   AttentionKind{model::Score::kStrict, model::Encoding::kNone}}) {
    std::string name(enum_name(kind));
    for (char& c : name) c = c == '-' ? '_' : c;
    add("neox_" + name, tiny_neox(kind));
    add("llama_" + name, tiny_llama(kind));
  }
  model::ModelSpec partial = tiny_neox(AttentionKind::kCocaSlack);
  partial.R = 4;
  partial.D = 10;
  add("partial", partial);
  partial.fold = ops::Fold::kOfficial;
  add("official_fold", partial);
  model::ModelSpec biased = tiny_llama(AttentionKind::kCocaSlack);
  biased.attention_bias = biased.output_bias = model::Bias::kYes;
  biased.rope_scaling = tiny_scaling(model::Scaling::kYarn, biased.R / 2);
  add("llama_biased", biased);
  return all;
}

// Content channels beside the planes of every score, with full and half T, and keys by softplus.
inline std::vector<NamedSpec> family_specs() {
  std::vector<NamedSpec> all;
  const auto add = [&](const std::string& name, model::ModelSpec s, int64_t content) {
    s.content = content;
    s.R = s.plane_dims();
    all.push_back({name, s});
  };
  for (const AttentionKind kind : attention_kinds()) {
    if (kind.position != model::Encoding::kRotary) continue;
    std::string name(enum_name(kind));
    for (char& c : name) c = c == '-' ? '_' : c;
    add("neox_content_" + name, tiny_neox(kind), 4);
    model::ModelSpec half = tiny_llama(kind);
    if (model::is_coca(kind) && kind.score != model::Score::kPope) half.t_width = model::TWidth::kHalf;
    add("llama_content_" + name, half, 2);
  }
  for (const AttentionKind kind : {AttentionKind::kCocaSlack, AttentionKind::kCocaStrict}) {
    model::ModelSpec soft = tiny_llama(kind);
    soft.magnitude = ops::Magnitude::kSoftplus;
    add(std::string("llama_softplus_") + (kind == AttentionKind::kCocaSlack ? "slack" : "strict"), soft, 0);
  }
  return all;
}

// Every modifier, alone and with the others.
inline std::vector<NamedSpec> modified_specs() {
  std::vector<NamedSpec> all;
  const auto add = [&](const std::string& name, model::ModelSpec s, std::vector<const model::Modifier*> modifiers) {
    s.modifiers = std::move(modifiers);
    all.push_back({name, s});
  };
  for (const model::Modifier* m : model::all_modifiers()) {
    std::string name(m->info().name);
    for (char& c : name) c = c == '-' ? '_' : c;
    add("neox_rope_" + name, tiny_neox(AttentionKind::kRope), {m});
    add("llama_strict_" + name, tiny_llama(AttentionKind::kCocaStrict), {m});
  }
  const auto every = model::all_modifiers();
  add("neox_slack_modified", tiny_neox(AttentionKind::kCocaSlack), {every.begin(), every.end()});
  add("qwen3_rope_modified", tiny_qwen3(AttentionKind::kRope), {every.begin(), every.end()});
  return all;
}

// Every attention kind in both architectures, head norms and windows, and also partial rotary, the official fold,
// sequential GPT-NeoX, tied embeddings, attention biases and the tanh GELU.
inline std::vector<NamedSpec> all_specs() {
  std::vector<NamedSpec> all;
  for (const AttentionKind kind : attention_kinds()) {
    std::string name(enum_name(kind));
    for (char& c : name) c = c == '-' ? '_' : c;
    all.push_back({"neox_" + name, tiny_neox(kind)});
    all.push_back({"llama_" + name, tiny_llama(kind)});
    if (!model::uses_rotary(kind)) continue;
    model::ModelSpec partial = tiny_neox(kind);
    partial.R = 4;
    partial.residual = model::ResidualKind::kSequential;
    partial.mlp = model::Mlp::kGeluTanh;
    all.push_back({"neox_partial_" + name, partial});
  }
  model::ModelSpec official = tiny_neox(AttentionKind::kCocaSlack);
  official.R = 4;
  official.fold = ops::Fold::kOfficial;
  all.push_back({"neox_official_fold", official});
  model::ModelSpec tied = tiny_llama(AttentionKind::kCocaSlack);
  tied.embeddings = model::Embeddings::kTied;
  tied.attention_bias = tied.output_bias = tied.mlp_bias = model::Bias::kYes;
  all.push_back({"llama_tied", tied});
  for (const AttentionKind kind : {AttentionKind::kRope, AttentionKind::kCocaSlack, AttentionKind::kCocaStrict})
    all.push_back({std::string("qwen3_") + (kind == AttentionKind::kRope        ? "rope"
                                            : kind == AttentionKind::kCocaSlack ? "coca_slack"
                                                                                : "coca_strict"),
                   tiny_qwen3(kind)});
  model::ModelSpec qwen2 = tiny_llama(AttentionKind::kRope);
  qwen2.architecture = model::Architecture::kQwen2;
  qwen2.attention_bias = model::Bias::kYes;
  all.push_back({"qwen2", qwen2});
  model::ModelSpec mistral = tiny_llama(AttentionKind::kRope);
  mistral.architecture = model::Architecture::kMistral;
  mistral.layer_window = {5, 5};
  all.push_back({"mistral", mistral});
  model::ModelSpec alternating = tiny_neox(AttentionKind::kCocaSlack);
  alternating.rope_layers = {1, 0};
  alternating.layer_window = {5, 0};
  all.push_back({"neox_alternating_coca_slack", alternating});
  alternating = tiny_llama(AttentionKind::kRope);
  alternating.rope_layers = {0, 1};
  all.push_back({"llama_alternating_rope", alternating});
  for (const NamedSpec& family : family_specs()) all.push_back(family);
  for (const NamedSpec& modified : modified_specs()) all.push_back(modified);
  for (const NamedSpec& scaled : scaled_specs()) all.push_back(scaled);
  for (const NamedSpec& half : half_t_specs()) all.push_back(half);
  return all;
}

inline std::vector<NamedSpec> rotary_specs() {
  std::vector<NamedSpec> all = all_specs();
  std::erase_if(all, [](const NamedSpec& s) { return !model::uses_rotary(s.spec.attention); });
  return all;
}

inline std::string spec_test_name(const testing::TestParamInfo<NamedSpec>& info) { return info.param.name; }

struct TinyModel {
  model::ModelSpec spec;
  model::ParamStore params;

  explicit TinyModel(const model::ModelSpec& s, uint64_t seed = 1) : spec(s), params(s) {
    model::initialise(s, seed, params);
    Rng rng(seed, 0xb1a5);  // biases and norms that have an effect
    for (const model::ParamInfo& info : params.infos()) {
      const bool norm = info.role == model::ParamRole::kNormWeight;
      if (info.role == model::ParamRole::kModifier) {  // none at a value where a part of it has no effect
        float* values = params.at(info).as<float>();
        for (int64_t i = 0; i < info.shape.product(); ++i) values[i] = static_cast<float>(0.3 + 0.5 * rng.uniform());
      }
      if (!norm && info.role != model::ParamRole::kBias) continue;
      float* values = params.at(info).as<float>();
      for (int64_t i = 0; i < info.shape.product(); ++i)
        values[i] = static_cast<float>((norm ? 1.0 : 0.0) + 0.2 * rng.normal());
    }
  }
};

inline std::vector<int32_t> random_ids(int64_t n, int64_t V, uint64_t seed) {
  Rng rng(seed, 0x1d5);
  std::vector<int32_t> ids(static_cast<size_t>(n));
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.below(static_cast<uint64_t>(V)));
  return ids;
}

}  // namespace coca::test

// tests/support/longformer_specs.h - tiny models with sliding windows, dilated windows and global tokens.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "support/tiny_model.h"

namespace coca::test {

// Plain windows for every attention kind; dilated windows and global tokens for the kinds whose code differs.
inline std::vector<NamedSpec> longformer_specs() {
  std::vector<NamedSpec> all;
  const auto add = [&](std::string name, const model::ModelSpec& s) {
    for (char& c : name) c = c == '-' ? '_' : c;
    all.push_back({std::move(name), s});
  };
  for (const AttentionKind kind : attention_kinds()) {
    const std::string name(enum_name(kind));
    model::ModelSpec neox = tiny_neox(kind), llama = tiny_llama(kind);
    neox.layer_window = {3, 0};
    add(name + "_window", neox);
    llama.layer_window = {3, 5};
    llama.dilation = {1, 1, 3, 3, 2, 2, 2, 2};  // two query heads per key/value head
    add(name + "_dilated", llama);
    llama.global_tokens = 3;
    add(name + "_dilated_global", llama);
    neox.global_tokens = 2;
    add(name + "_fused_global", neox);
    if (kind != AttentionKind::kCocaSlack && kind != AttentionKind::kCocaStrict) continue;
    llama.t_width = neox.t_width = model::TWidth::kHalf;
    add(name + "_half_t_dilated_global", llama);
    add(name + "_half_t_fused_global", neox);
  }
  model::ModelSpec partial = tiny_neox(AttentionKind::kCocaSlack);
  partial.R = 4;
  partial.fold = ops::Fold::kOfficial;
  partial.layer_window = {4, 2};
  partial.dilation = {1, 2, 4, 1, 1, 1};
  partial.global_tokens = 1;
  add("official_fold", partial);
  model::ModelSpec qwen = tiny_qwen3(AttentionKind::kCocaStrict);
  qwen.dilation = {1, 1, 1, 1, 2, 2, 1, 1};
  add("qwen3_dilated", qwen);
  model::ModelSpec scaled = tiny_llama(AttentionKind::kRope);
  scaled.layer_window = {3, 5};
  scaled.global_tokens = 4;
  scaled.rope_scaling = {.type = model::Scaling::kDynamic, .factor = 2};
  add("dynamic_global", scaled);
  return all;
}

// The same models with bidirectional attention, which xPos lacks.
inline std::vector<NamedSpec> encoder_specs() {
  std::vector<NamedSpec> all;
  for (const AttentionKind kind : attention_kinds()) {
    if (model::uses_xpos(kind)) continue;
    std::string name(enum_name(kind));
    for (char& c : name) c = c == '-' ? '_' : c;
    model::ModelSpec neox = tiny_neox(kind), llama = tiny_llama(kind);
    neox.direction = llama.direction = model::Direction::kBidirectional;
    all.push_back({name + "_encoder", neox});
    neox.layer_window = {3, 0};
    neox.global_tokens = 2;
    all.push_back({name + "_encoder_fused_global", neox});
    llama.layer_window = {3, 5};
    llama.dilation = {1, 1, 3, 3, 2, 2, 2, 2};
    llama.global_tokens = 3;
    all.push_back({name + "_encoder_dilated_global", llama});
    if (kind != AttentionKind::kCocaSlack) continue;
    llama.t_width = neox.t_width = model::TWidth::kHalf;
    all.push_back({name + "_half_t_encoder_dilated_global", llama});
    all.push_back({name + "_half_t_encoder_fused_global", neox});
  }
  return all;
}

// Causal and bidirectional models.
inline std::vector<NamedSpec> trained_window_specs() {
  std::vector<NamedSpec> all = longformer_specs();
  const std::vector<NamedSpec> encoders = encoder_specs();
  all.insert(all.end(), encoders.begin(), encoders.end());
  return all;
}

// A few attention kinds, for tests that do not depend on the kind.
inline std::vector<NamedSpec> few_window_specs() {
  std::vector<NamedSpec> all = trained_window_specs();
  std::erase_if(all, [](const NamedSpec& s) {
    const AttentionKind kind = s.spec.attention;
    const bool dilated = s.name.ends_with("_dilated_global") || s.name.ends_with("_fused_global");
    return !dilated || (kind != AttentionKind::kRope && kind != AttentionKind::kCocaSlack &&
                        kind != AttentionKind{model::Score::kStrict, model::Encoding::kAlibi});
  });
  return all;
}

}  // namespace coca::test

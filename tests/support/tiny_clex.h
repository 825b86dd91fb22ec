// tests/support/tiny_clex.h - tiny models with a CLEX network.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "support/tiny_model.h"

namespace coca::test {

// Trained on 8 tokens, for up to 4 times that. A coarse solver makes complex steps fast and has the same adjoint.
inline model::ModelSpec clex_spec(model::ModelSpec s) {
  s.rope_scaling = {.type = model::Scaling::kClex, .max_factor = 4, .time_step = 0.25};
  return s;
}

// A model whose network has an effect, as after some training.
inline TinyModel clex_model(const model::ModelSpec& spec) {
  TinyModel m(spec);
  Rng rng(9);
  for (const model::ParamInfo& info : m.params.infos())
    if (info.role == model::ParamRole::kClexDown)
      for (int64_t i = 0; i < info.shape.product(); ++i)
        m.params.at(info).as<float>()[i] = static_cast<float>(0.05 * rng.normal());
  return m;
}

inline std::vector<NamedSpec> clex_specs() {
  std::vector<NamedSpec> all = {{"neox_rope", tiny_neox(AttentionKind::kRope)},
                                {"llama_rope", tiny_llama(AttentionKind::kRope)},
                                {"neox_coca_slack", tiny_neox(AttentionKind::kCocaSlack)},
                                {"qwen3_coca_slack", tiny_qwen3(AttentionKind::kCocaSlack)},
                                {"llama_coca_strict", tiny_llama(AttentionKind::kCocaStrict)},
                                {"neox_coca_tied", tiny_neox(AttentionKind::kCocaTied)},
                                {"official_fold", tiny_neox(AttentionKind::kCocaSlack)},
                                {"partial_coca_strict", tiny_neox(AttentionKind::kCocaStrict)}};
  all[6].spec.R = all[7].spec.R = 4;
  all[6].spec.fold = ops::Fold::kOfficial;
  for (NamedSpec& s : all) s.spec = clex_spec(s.spec);
  return all;
}

}  // namespace coca::test

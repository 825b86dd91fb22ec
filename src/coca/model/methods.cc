// SPDX-License-Identifier: Apache-2.0
#include "coca/model/methods.h"

namespace coca::model {

ModelSpec method_spec(const ModelSpec& like, AttentionKind attention, Scaling scaling, Pattern pattern) {
  ModelSpec s = like;
  s.attention = attention;
  s.pattern = default_pattern(pattern, like.max_position);
  s.rope_scaling = {.type = scaling, .factor = scaling == Scaling::kNone ? 1.0 : 4.0};
  if (scaling == Scaling::kLongRope)  // config.json brings these lists
    s.rope_scaling.short_factor = s.rope_scaling.long_factor = std::vector<double>(static_cast<size_t>(like.R / 2), 2.0);
  return s;
}

std::vector<Method> all_methods(const ModelSpec& like) {
  std::vector<Method> all;
  for (const auto& attention : EnumTraits<AttentionKind>::names())
    for (const auto& scaling : EnumTraits<Scaling>::names())
      for (const auto& pattern : EnumTraits<Pattern>::names()) {
        Method m{.attention = attention.value, .scaling = scaling.value, .pattern = pattern.value};
        const ModelSpec spec = method_spec(like, m.attention, m.scaling, m.pattern);
        try {
          validate(spec);
          m.use = trains(spec.pattern) ? MethodUse::kTraining : MethodUse::kEvaluation;
        } catch (const Error& error) {
          m.reason = error.what();
        }
        all.push_back(std::move(m));
      }
  return all;
}

}  // namespace coca::model

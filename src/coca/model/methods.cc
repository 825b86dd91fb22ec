// SPDX-License-Identifier: Apache-2.0
#include "coca/model/methods.h"

#include <algorithm>

namespace coca::model {

namespace {

Pattern pattern_of(Sight sight) { return sight <= Sight::kReRope ? static_cast<Pattern>(sight) : Pattern::kFull; }
static_assert(static_cast<int>(Sight::kReRope) == static_cast<int>(Pattern::kReRope));

void add_windows(Sight sight, ModelSpec& s) {
  if (sight < Sight::kSlidingWindow) return;
  s.layer_window.assign(static_cast<size_t>(s.L), std::max<int64_t>(1, s.max_position / 2));
  if (sight == Sight::kSlidingWindow) return;
  const int64_t group = s.H / s.G;
  for (int64_t i = 0; i < s.L * s.H; ++i)
    s.dilation.push_back(i % s.H / group % 2 == 0 ? 2 : 1);  // every other key/value head
  if (sight >= Sight::kLongformer) s.global_tokens = 2;
  if (sight == Sight::kLongformerEncoder) s.direction = Direction::kBidirectional;
}

}  // namespace

ModelSpec method_spec(const ModelSpec& like, AttentionKind attention, Scaling scaling, Sight sight) {
  ModelSpec s = like;
  s.attention = attention;
  s.R = s.plane_dims();
  s.pattern = default_pattern(pattern_of(sight), like.max_position);
  add_windows(sight, s);
  s.rope_scaling = {.type = scaling, .factor = scaling == Scaling::kNone ? 1.0 : 4.0};
  if (scaling == Scaling::kLongRope)  // config.json brings these lists
    s.rope_scaling.short_factor = s.rope_scaling.long_factor = std::vector<double>(static_cast<size_t>(s.R / 2), 2.0);
  return s;
}

std::string refusal(const ModelSpec& like, AttentionKind attention, const Modifier& modifier) {
  ModelSpec s = like;
  s.attention = attention;
  s.R = s.plane_dims();
  s.modifiers = {&modifier};
  try {
    validate(s);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::vector<Method> all_methods(const ModelSpec& like) {
  std::vector<Method> all;
  for (const auto& attention : EnumTraits<AttentionKind>::names())
    for (const auto& scaling : EnumTraits<Scaling>::names())
      for (const auto& sight : EnumTraits<Sight>::names()) {
        Method m{.attention = attention.value, .scaling = scaling.value, .sight = sight.value};
        const ModelSpec spec = method_spec(like, m.attention, m.scaling, m.sight);
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

// SPDX-License-Identifier: Apache-2.0
#include "coca/study/method.h"

#include <algorithm>

namespace coca::study {

namespace {

constexpr char kJoin = '+';

// "+random, +pose, ...".
std::string trainings_text() {
  std::string text;
  for (const auto& training : EnumTraits<Training>::names())
    if (training.value != Training::kPlain)
      text += fmt::format("{}{}{}", text.empty() ? "" : ", ", kJoin, training.name);
  return text;
}

int64_t share_of_length(int64_t length, int64_t divisor) { return std::max<int64_t>(1, length / divisor); }

// Narrow below and wide above; half the heads of a wide layer reach twice as far with as many keys.
void set_longformer(train::TrainConfig& c) {
  model::WindowOptions& w = c.windows;
  w = {.global_tokens = 1};
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    const bool upper = layer >= (c.layers + 1) / 2;
    w.layer_window.push_back(share_of_length(c.length, upper ? 4 : 8));
    for (int64_t head = 0; head < c.heads; ++head) w.dilation.push_back(upper && head < c.heads / 2 ? 2 : 1);
  }
}

}  // namespace

Method method_from_name(std::string_view name) {
  const size_t join = name.find(kJoin);
  const std::string_view kind = name.substr(0, join);
  const auto kinds = EnumTraits<model::AttentionKind>::names();
  const auto attention = std::ranges::find(kinds, kind, [](const auto& entry) { return entry.name; });
  if (attention == kinds.end())
    fail(ErrorKind::kInvalidArgument,
         "\"{}\" is no attention kind; expected one of {}; any of them alone or with one of {}", kind,
         enum_choices_for<model::AttentionKind>(kind), trainings_text());
  if (join == std::string_view::npos) return {.attention = attention->value};
  const auto trainings = EnumTraits<Training>::names();
  const auto training =
      std::ranges::find(trainings, name.substr(join + 1), [](const auto& entry) { return entry.name; });
  COCA_CHECK(training != trainings.end() && training->value != Training::kPlain,
             "\"{}\" is no way of training; expected {} alone or with one of {}", name.substr(join), kind,
             trainings_text());
  return {.attention = attention->value, .training = training->value};
}

std::string_view methods_help() {
  static const std::string text = fmt::format(
      "attention kinds to train, of {}; alone or with one of {}, such as coca-slack+pose: windows go with every kind, "
      "random and pose with RoPE and xPos, clex with RoPE; default: the preset's",
      enum_choices<model::AttentionKind>(), trainings_text());
  return text;
}

std::string method_name(const Method& m) {
  const std::string kind(enum_name(m.attention));
  return m.training == Training::kPlain ? kind : kind + kJoin + std::string(enum_name(m.training));
}

std::vector<std::string> survey_methods() {
  std::vector<std::string> names;
  for (const auto& kind : EnumTraits<model::AttentionKind>::names())
    names.push_back(method_name({.attention = kind.value}));
  for (const auto& training : EnumTraits<Training>::names()) {
    if (training.value == Training::kPlain) continue;
    using Kind = model::AttentionKind;
    for (const Kind kind : {Kind::kRope, Kind::kCocaSlack, Kind::kCocaStrict})
      names.push_back(method_name({kind, training.value}));
    if (training.value == Training::kWindow || training.value == Training::kLongformer)
      names.push_back(method_name({Kind::kAlibi, training.value}));
  }
  return names;
}

void apply_method(const Method& m, int64_t longest, train::TrainConfig& c) {
  c.attention = m.attention;
  switch (m.training) {
    case Training::kPlain: return;
    case Training::kRandom:
    case Training::kPose:
      c.positions.draw = m.training == Training::kPose ? train::PositionDraw::kPose : train::PositionDraw::kRandom;
      c.positions.target_length = longest;
      return;
    case Training::kClex:
      c.positions.rope_scaling = model::Scaling::kClex;
      c.positions.factor = static_cast<double>(longest) / static_cast<double>(c.length);
      c.positions.plain_steps = c.steps * 2 / 3;
      return;
    case Training::kWindow: c.windows = {.layer_window = {share_of_length(c.length, 4)}}; return;
    case Training::kLongformer: set_longformer(c); return;
  }
}

}  // namespace coca::study

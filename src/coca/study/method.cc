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

std::string modifiers_text() {
  std::string text;
  for (const model::Modifier* m : model::all_modifiers())
    text += fmt::format("{}{}{}", text.empty() ? "" : ", ", kJoin, m->info().name);
  return text;
}

template <typename E>
bool find_name(std::string_view name, E& out) {
  const auto names = EnumTraits<E>::names();
  const auto found = std::ranges::find(names, name, [](const auto& entry) { return entry.name; });
  if (found != names.end()) out = found->value;
  return found != names.end();
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
  const std::string_view kind = name.substr(0, name.find(kJoin));
  Method method;
  if (!find_name(kind, method.attention))
    fail(
        ErrorKind::kInvalidArgument,
        "\"{}\" is no attention kind; expected one of {}; any of them alone, or with modifiers ({}) and with one of {}",
        kind, enum_choices_for<model::AttentionKind>(kind), modifiers_text(), trainings_text());
  for (std::string_view rest = name.substr(kind.size()); !rest.empty();) {
    const std::string_view part = rest.substr(0, rest.find(kJoin, 1)), added = part.substr(1);
    rest.remove_prefix(part.size());
    const model::Modifier* modifier = nullptr;
    if (find_name(added, modifier))
      method.modifiers.push_back(modifier);
    else
      COCA_CHECK(
          method.training == Training::kPlain && find_name(added, method.training) &&
              method.training != Training::kPlain && rest.empty(),
          "\"{}\" is no modifier and no way of training; expected {} alone, or with modifiers ({}) and then with "
          "one of {}",
          part, kind, modifiers_text(), trainings_text());
  }
  method.modifiers = model::ordered(method.modifiers);
  return method;
}

std::string_view methods_help() {
  static const std::string text = fmt::format(
      "attention kinds to train, of {}; alone, or with modifiers ({}; coca methods says what they do), or with one of "
      "{}, "
      "such as coca-slack+kv-shift+pose: windows go with every kind, random and pose with RoPE and xPos, clex with "
      "RoPE; "
      "default: the preset's",
      enum_choices<model::AttentionKind>(), modifiers_text(), trainings_text());
  return text;
}

std::string method_name(const Method& m) {
  std::string name(enum_name(m.attention));
  for (const model::Modifier* modifier : m.modifiers) name += kJoin + std::string(modifier->info().name);
  return m.training == Training::kPlain ? name : name + kJoin + std::string(enum_name(m.training));
}

std::vector<std::string> survey_methods() {
  std::vector<std::string> names;
  for (const auto& kind : EnumTraits<model::AttentionKind>::names())
    names.push_back(method_name({.attention = kind.value, .modifiers = {}}));
  for (const auto& training : EnumTraits<Training>::names()) {
    if (training.value == Training::kPlain) continue;
    using Kind = model::AttentionKind;
    for (const Kind kind : {Kind::kRope, Kind::kCocaSlack, Kind::kCocaStrict})
      names.push_back(method_name({.attention = kind, .modifiers = {}, .training = training.value}));
    if (training.value == Training::kWindow || training.value == Training::kLongformer)
      names.push_back(method_name({.attention = Kind::kAlibi, .modifiers = {}, .training = training.value}));
  }
  return names;
}

void apply_method(const Method& m, int64_t longest, train::TrainConfig& c) {
  c.attention = m.attention;
  c.modifiers = m.modifiers;
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

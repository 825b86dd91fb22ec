// rope_scaling (transformers 4) and rope_parameters (transformers 5) of config.json, both ways; declared in config.h.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <nlohmann/json.hpp>

#include "coca/formats/config.h"
#include "coca/formats/config_fields.h"

namespace coca::formats {

using nlohmann::json;

namespace {

std::optional<double> optional_number(const ConfigFields& f, const char* key) {
  return f.has(key) ? std::optional(f.number(key)) : std::nullopt;
}

std::string choices() {
  std::string text = "default";
  for (const auto& entry : EnumTraits<model::Scaling>::names())
    if (entry.value != model::Scaling::kNone) text += ", " + std::string(entry.name);
  return text;
}

model::Scaling type_of(const ConfigFields& f, std::string_view name) {
  const std::string old_name = f.text("type", "default"), type = f.text("rope_type", old_name);
  if (type == "default") return model::Scaling::kNone;
  if (type == "su") return model::Scaling::kLongRope;  // its first name
  const auto& known = EnumTraits<model::Scaling>::names();
  const auto at = std::find_if(known.begin(), known.end(), [&](const auto& entry) {
    return entry.name == type && entry.value != model::Scaling::kNone;
  });
  COCA_CHECK_AS(kBadFile, at != known.end(), "{}: {} type \"{}\" is not supported; expected {}", f.origin(), name, type,
                choices());
  return at->value;
}

void read_yarn(const ConfigFields& f, model::RopeScaling& s) {
  s.beta_fast = f.number("beta_fast", s.beta_fast);
  s.beta_slow = f.number("beta_slow", s.beta_slow);
  s.attention_factor = optional_number(f, "attention_factor");
  s.mscale = optional_number(f, "mscale");
  s.mscale_all_dim = optional_number(f, "mscale_all_dim");
  s.borders = f.boolean("truncate", true) ? model::YarnBorders::kWhole : model::YarnBorders::kFractional;
  f.ignore({"finetuned"});  // yarn's own code: whether the weights were tuned for it
}

void read_longrope(const ConfigFields& f, int64_t max_position, model::RopeScaling& s) {
  s.short_factor = f.numbers("short_factor");
  s.long_factor = f.numbers("long_factor");
  s.attention_factor = optional_number(f, "attention_factor");
  const auto original = static_cast<double>(std::max<int64_t>(1, s.original_max_position));
  s.factor = f.number_like("factor", "factor", std::max(1.0, static_cast<double>(max_position) / original));
}

// CLEX's own names; "factor" says nothing there.
void read_clex(const ConfigFields& f, model::RopeScaling& s) {
  f.ignore({"factor"});
  s.max_factor = f.integer("max_factor", s.max_factor);
  s.param_factor = f.integer("param_factor", s.param_factor);
  s.time_step = f.number("time_dt", s.time_step);
  const std::string act = f.text("act", "tanh");
  COCA_CHECK_AS(kBadFile, act == "tanh" || act == "silu",
                "{}: rope_scaling of type clex has act \"{}\"; expected tanh or silu", f.origin(), act);
  s.activation = enum_from_name<model::ClexActivation>(act);
}

void write_clex(const model::RopeScaling& s, json& j) {
  j["max_factor"] = s.max_factor;
  j["param_factor"] = s.param_factor;
  j["act"] = std::string(enum_name(s.activation));
  j["time_dt"] = s.time_step;
}

}  // namespace

model::RopeScaling rope_scaling_from_json(const json& value, std::string_view origin, const LengthsOfConfig& lengths,
                                          std::string_view name) {
  if (value.is_null()) return {};
  const ConfigFields f(value, origin, std::string(name) + ".");
  f.ignore({"rope_theta", "partial_rotary_factor"});
  model::RopeScaling s{.type = type_of(f, name)};
  const int64_t own = f.integer("original_max_position_embeddings", lengths.max_position);
  if (s.type == model::Scaling::kYarn || s.type == model::Scaling::kYarnPaper || s.type == model::Scaling::kLlama3 ||
      s.type == model::Scaling::kLongRope || s.type == model::Scaling::kClex)
    s.original_max_position = lengths.original.value_or(own);
  if (s.type == model::Scaling::kNone) {
    f.ignore({"factor"});
  } else if (s.type == model::Scaling::kClex) {
    read_clex(f, s);
  } else if (s.type == model::Scaling::kLongRope) {
    read_longrope(f, lengths.max_position, s);
  } else {
    COCA_CHECK_AS(kBadFile, f.has("factor"), "{}: {} of type {} needs a factor", origin, name, enum_name(s.type));
    s.factor = f.number_like("factor", "factor", 1.0);
  }
  if (s.type == model::Scaling::kYarn || s.type == model::Scaling::kYarnPaper) read_yarn(f, s);
  if (s.type == model::Scaling::kLlama3) {
    s.low_freq_factor = f.number("low_freq_factor");
    s.high_freq_factor = f.number("high_freq_factor");
  }
  f.refuse_unread();
  return s;
}

json rope_scaling_to_json(const model::RopeScaling& s) {
  if (s.type == model::Scaling::kNone) return nullptr;
  // The official code and old transformers know the first two types, under "type", and no third key; so has CLEX's
  // code.
  const bool old =
      s.type == model::Scaling::kLinear || s.type == model::Scaling::kDynamic || s.type == model::Scaling::kClex;
  json j = {{old ? "type" : "rope_type", std::string(enum_name(s.type))}, {"factor", s.factor}};
  if (s.original_max_position > 0) j["original_max_position_embeddings"] = s.original_max_position;
  if (s.type == model::Scaling::kLlama3) {
    j["low_freq_factor"] = s.low_freq_factor;
    j["high_freq_factor"] = s.high_freq_factor;
  }
  if (s.type == model::Scaling::kYarn || s.type == model::Scaling::kYarnPaper) {
    j["beta_fast"] = s.beta_fast;
    j["beta_slow"] = s.beta_slow;
    if (s.borders == model::YarnBorders::kFractional) j["truncate"] = false;
    if (s.mscale) j["mscale"] = *s.mscale;
    if (s.mscale_all_dim) j["mscale_all_dim"] = *s.mscale_all_dim;
  }
  if (s.type == model::Scaling::kLongRope) {
    j["short_factor"] = s.short_factor;
    j["long_factor"] = s.long_factor;
  }
  if (s.type == model::Scaling::kClex) write_clex(s, j);
  if (s.attention_factor) j["attention_factor"] = *s.attention_factor;
  return j;
}

}  // namespace coca::formats

// coca/io/options.cc - the untyped half of options.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/io/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <span>

#include "coca/base/suggest.h"

#include "coca/io/names.h"

namespace coca::io::detail {

namespace {

std::string shown(const nlohmann::json& value) {
  std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (text.size() > 80) text.replace(77, std::string::npos, "...");
  return text;
}

}  // namespace

std::optional<OptionRange> option_range(std::string_view name, bool whole) {
  struct Named {
    std::string_view name;
    OptionRange range;
  };
  static constexpr auto kTokens = static_cast<double>(kMostTokens), kCount = static_cast<double>(kMostCount);
  static constexpr Named kWhole[] = {{"key_least", {0, 1e18}},      {"key_most", {0, 1e18}},
                                     {"shifts", {-kCount, kCount}}, {"tokens", {0, kTokens}},
                                     {"max_tokens", {0, kTokens}},  {"min_tokens", {0, kTokens}},
                                     {"eval_tokens", {0, kTokens}}, {"batch_tokens", {0, kTokens}},
                                     {"trials", {0, 1e6}},          {"samples", {0, 1e6}},
                                     {"passkey_trials", {0, 1e6}},  // of a cell: a share is known to 0.1 % by then
                                     {"repeats", {0, 1e6}},         {"warmup", {0, 1e6}}};
  static constexpr Named kFractions[] = {// shares
                                         {"beta1", {0, 1}},
                                         {"beta2", {0, 1}},
                                         {"character_coverage", {0.98, 1}},
                                         {"clex_rate", {0, 1}},
                                         {"depths", {0, 1}},
                                         {"lora_dropout", {0, 1}},
                                         {"min_p", {0, 1}},
                                         {"passkey_share", {0, 1}},
                                         {"slow_turn", {0, 1e6}},  // of a circle
                                         {"key_gain", {0, 1e6}},
                                         {"key_least", {-1000, 0}},  // a log-probability
                                         {"task_share", {0, 1}},
                                         {"rotary_pct", {0, 1}},
                                         {"top_p", {0, 1}},
                                         // beyond these a model learns nothing, without a word
                                         {"adam_eps", {1e-30, 1}},
                                         {"norm_eps", {0, 1}},
                                         {"rope_theta", {1, 1e15}},
                                         {"init_std", {0, 1e6}},
                                         {"epochs", {0, 1e6}},
                                         // too large ones end a run, as its numbers are no longer finite
                                         {"learning_rate", {0, 1e39}},
                                         {"min_learning_rate", {0, 1e39}},
                                         {"weight_decay", {0, 1e39}},
                                         {"clip_norm", {0, 1e39}},
                                         {"lora_alpha", {0, 1e39}},
                                         {"factor", {1, 1e6}},
                                         {"factors", {1, 1e6}},
                                         {"dynamic_factor", {1, 1e6}},
                                         {"rope_factor", {1, 1e6}},
                                         {"temperature", {0, 1e6}},
                                         {"repetition_penalty", {1e-6, 1e6}},
                                         {"tolerance", {0, 1e6}},
                                         // of machines
                                         {"gbit", {1e-6, 1e9}},
                                         {"latency_us", {0, 1e9}},
                                         {"machine_speed", {1e-9, 1e9}},
                                         {"max_shard_gib", {0, 1e9}},
                                         {"memory_cap", {0, 1e9}},
                                         {"sample_seconds", {0, 3600}}};
  if (name == "seed" || name == "seeds") return std::nullopt;
  const auto find = [&](std::span<const Named> table) -> std::optional<OptionRange> {
    const auto found = std::ranges::find(table, name, &Named::name);
    return found == table.end() ? std::nullopt : std::optional(found->range);
  };
  return whole ? find(kWhole).value_or(OptionRange{0, kCount}) : find(kFractions);
}

namespace {
template <typename T>
void check_ends(std::string_view shown, const OptionRange& range, T value, Least least) {
  const auto text = [](double end) {
    return end == std::floor(end) && std::abs(end) < 0x1p53 ? std::to_string(static_cast<int64_t>(end))
                                                            : fmt::format("{:g}", end);
  };
  const auto v = static_cast<double>(value);
  const double low = std::max(range.least, static_cast<double>(least.value));
  COCA_CHECK(!least.above || v > low, "{} is {}; expected more than {}", shown, value, text(low));
  COCA_CHECK(v >= low, "{} is {}; expected at least {}", shown, value, text(low));
  COCA_CHECK(v <= range.most, "{} is {}; expected at most {}", shown, value, text(range.most));
}
}  // namespace

void check_in_range(std::string_view shown, const OptionRange& range, int64_t value, Least least) {
  check_ends(shown, range, value, least);
}
void check_in_range(std::string_view shown, const OptionRange& range, double value, Least least) {
  check_ends(shown, range, value, least);
}

nlohmann::ordered_json scalar_to_json(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  return value;
}

nlohmann::ordered_json scalar_to_json(float value) {
  if (!std::isfinite(value)) return scalar_to_json(static_cast<double>(value));
  const std::string shortest = fmt::format("{}", value);  // 0.1f is "0.1", not 0.10000000149
  double wide = 0;
  std::from_chars(shortest.data(), shortest.data() + shortest.size(), wide);
  return wide;
}

nlohmann::ordered_json scalar_to_json(const std::string& value) { return name_from_bytes(value); }

void option_type_error(const nlohmann::json& value, OptionPlace place, std::string_view expected) {
  fail(ErrorKind::kInvalidArgument, "{}: \"{}\" is {}; expected {}", place.origin, place.key, shown(value), expected);
}

void scalar_from_json(const nlohmann::json& value, OptionPlace place, int64_t& out) {
  const bool fits = value.is_number_unsigned()
                        ? value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())
                        : value.is_number_integer();
  if (!fits) option_type_error(value, place, "a whole number of 64 bits");
  out = value.get<int64_t>();
}

void scalar_from_json(const nlohmann::json& value, OptionPlace place, double& out) {
  if (value.is_number()) {
    out = value.get<double>();
  } else if (value == "nan") {
    out = std::numeric_limits<double>::quiet_NaN();
  } else if (value == "inf" || value == "-inf") {
    out = value == "inf" ? std::numeric_limits<double>::infinity() : -std::numeric_limits<double>::infinity();
  } else {
    option_type_error(value, place, "a number");
  }
}

void scalar_from_json(const nlohmann::json& value, OptionPlace place, float& out) {
  double wide = 0;
  scalar_from_json(value, place, wide);
  if (std::isfinite(wide) && std::abs(wide) > static_cast<double>(std::numeric_limits<float>::max()))
    option_type_error(value, place, "a number in the range of float");
  out = static_cast<float>(wide);
}

void scalar_from_json(const nlohmann::json& value, OptionPlace place, bool& out) {
  if (!value.is_boolean()) option_type_error(value, place, "true or false");
  out = value.get<bool>();
}

void scalar_from_json(const nlohmann::json& value, OptionPlace place, std::string& out) {
  if (value.is_null()) return out.clear();  // not given
  if (!value.is_string()) option_type_error(value, place, "a text in quotes");
  out = bytes_from_name(value.get_ref<const std::string&>());
}

void check_option_keys(const nlohmann::json& object, const std::vector<std::string>& known, std::string_view origin) {
  COCA_CHECK(object.is_object(), "{}: expected a JSON object of options, found {}", origin, shown(object));
  for (const auto& item : object.items()) {
    if (std::find(known.begin(), known.end(), item.key()) != known.end()) continue;
    std::vector<std::string> near = nearest_names(item.key(), known);
    for (std::string& name : near) name = "\"" + name + "\"";
    fail(ErrorKind::kInvalidArgument, "{}: unknown option \"{}\"{}", origin, item.key(), did_you_mean(near));
  }
}

}  // namespace coca::io::detail

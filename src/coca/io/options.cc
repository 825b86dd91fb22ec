// coca/io/options.cc - the untyped half of options.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/io/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

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

std::optional<int64_t> option_limit(std::string_view name) {
  for (const std::string_view any : {"seed", "seeds", "key_least", "key_most"})
    if (name == any) return std::nullopt;
  for (const std::string_view text : {"tokens", "max_tokens", "min_tokens", "eval_tokens", "batch_tokens"})
    if (name == text) return kMostTokens;
  for (const std::string_view prompts : {"trials", "samples", "passkey_trials"})  // of a cell: a share is known to 0.1 % by then
    if (name == prompts) return 1000000;
  return kMostCount;
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
  fail(ErrorKind::kInvalidArgument, "{}: \"{}\" is {}; expected {}", place.origin, place.key, shown(value),
       expected);
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
  if (!value.is_string()) option_type_error(value, place, "a text in quotes");
  out = bytes_from_name(value.get_ref<const std::string&>());
}

void check_option_keys(const nlohmann::json& object, const std::vector<std::string>& known,
                       std::string_view origin) {
  COCA_CHECK(object.is_object(), "{}: expected a JSON object of options, found {}", origin, shown(object));
  for (const auto& item : object.items()) {
    if (std::find(known.begin(), known.end(), item.key()) != known.end()) continue;
    std::vector<std::string> near = nearest_names(item.key(), known);
    for (std::string& name : near) name = "\"" + name + "\"";
    fail(ErrorKind::kInvalidArgument, "{}: unknown option \"{}\"{}", origin, item.key(), did_you_mean(near));
  }
}

}  // namespace coca::io::detail

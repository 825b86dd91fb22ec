// SPDX-License-Identifier: Apache-2.0
#include "coca/formats/config_fields.h"

#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "coca/base/error.h"
#include "coca/base/log.h"
#include "coca/io/options.h"

namespace coca::formats {

using nlohmann::json;

namespace {

bool says_off(const json& value) {
  if (value.is_number()) return value == 0;
  return value.is_null() || value == false || (value.is_string() && value.get_ref<const std::string&>().empty()) ||
         (value.is_structured() && value.empty());
}

bool fits(const json& integer) {
  return !integer.is_number_unsigned() || integer.get<uint64_t>() <= uint64_t{INT64_MAX};
}

}  // namespace

ConfigFields::ConfigFields(const json& object, std::string_view origin, std::string where)
    : object_(object), origin_(origin), where_(std::move(where)) {
  COCA_CHECK_AS(kBadFile, object.is_object(), "{}: {}expected a JSON object, found {}", origin,
                where_.empty() ? "" : "field \"" + where_.substr(0, where_.size() - 1) + "\": ", object.type_name());
}

bool ConfigFields::has(const char* key) const {
  read_.insert(key);
  return object_.contains(key) && !object_.at(key).is_null();
}

const json& ConfigFields::at(const char* key, bool (json::*is)() const noexcept, const char* expected) const {
  read_.insert(key);
  COCA_CHECK_AS(kBadFile, object_.contains(key), "{}: field \"{}{}\" is missing", origin_, where_, key);
  const json& value = object_.at(key);
  COCA_CHECK_AS(kBadFile, (value.*is)(), "{}: field \"{}{}\" is {}; expected {}", origin_, where_, key, value.dump(),
                expected);
  return value;
}

int64_t ConfigFields::integer(const char* key) const {
  const json& value = at(key, &json::is_number_integer, "an integer");
  COCA_CHECK_AS(kBadFile, fits(value), "{}: field \"{}{}\" is {}; expected an integer of 64 bits", origin_, where_, key,
                value.dump());
  return value.get<int64_t>();
}

double ConfigFields::number(const char* key) const { return at(key, &json::is_number, "a number").get<double>(); }

int64_t ConfigFields::count(const char* key) const {
  const int64_t value = integer(key);
  COCA_CHECK_AS(kBadFile, value >= 1, "{}: field \"{}{}\" is {}; expected at least 1", origin_, where_, key, value);
  return value;
}

double ConfigFields::number_like(std::string_view option, const char* key, double otherwise) const {
  if (!has(key)) return otherwise;
  const double value = number(key);
  const io::detail::OptionRange range = io::detail::option_range(option, false).value();
  COCA_CHECK_AS(kBadFile, value >= range.least && value <= range.most,
                "{}: field \"{}{}\" is {}; expected {:g} to {:g}", origin_, where_, key, raw(key).dump(), range.least,
                range.most);
  return value;
}

bool ConfigFields::boolean(const char* key, bool otherwise) const {
  return has(key) ? at(key, &json::is_boolean, "true or false").get<bool>() : otherwise;
}

std::string ConfigFields::text(const char* key, std::string otherwise) const {
  return has(key) ? at(key, &json::is_string, "a string").get<std::string>() : std::move(otherwise);
}

std::vector<std::string> ConfigFields::texts(const char* key) const {
  std::vector<std::string> items;
  if (!has(key)) return items;
  const json& list = at(key, &json::is_array, "a list of strings");
  for (const json& item : list) {
    COCA_CHECK_AS(kBadFile, item.is_string(), "{}: field \"{}{}\" is {}; expected a list of strings", origin_, where_,
                  key, list.dump());
    items.push_back(item.get<std::string>());
  }
  return items;
}

std::vector<double> ConfigFields::numbers(const char* key) const {
  std::vector<double> items;
  const json& list = at(key, &json::is_array, "a list of numbers");
  for (const json& item : list) {
    COCA_CHECK_AS(kBadFile, item.is_number(), "{}: field \"{}{}\" holds {}; expected numbers", origin_, where_, key,
                  item.dump());
    items.push_back(item.get<double>());
  }
  return items;
}

std::vector<int64_t> ConfigFields::integers(const char* key) const {
  std::vector<int64_t> items;
  const json& list = at(key, &json::is_array, "a list of integers");
  const auto take = [&](const json& item) {
    COCA_CHECK_AS(kBadFile, item.is_number_integer() && fits(item), "{}: field \"{}{}\" holds {}; expected integers",
                  origin_, where_, key, item.dump());
    items.push_back(item.get<int64_t>());
  };
  for (const json& item : list) {
    if (!item.is_array()) take(item);
    for (const json& inner : item.is_array() ? item : json::array()) take(inner);
  }
  return items;
}

std::optional<int64_t> ConfigFields::optional_id(const char* key) const {
  return has(key) ? std::optional<int64_t>(integer(key)) : std::nullopt;
}

std::vector<int64_t> ConfigFields::ids(const char* key) const {
  if (!has(key)) return {};
  const json& value = object_.at(key);
  if (!value.is_array()) return {integer(key)};
  std::vector<int64_t> ids;
  for (const json& item : value) {
    COCA_CHECK_AS(kBadFile, item.is_number_integer() && fits(item),
                  "{}: field \"{}{}\" is {}; expected an integer or a list of integers", origin_, where_, key,
                  value.dump());
    ids.push_back(item.get<int64_t>());
  }
  return ids;
}

const json& ConfigFields::raw(const char* key) const {
  read_.insert(key);
  return object_.at(key);
}

void ConfigFields::ignore(std::initializer_list<std::string_view> keys) const {
  read_.insert(keys.begin(), keys.end());
}

void ConfigFields::ignore_off(const char* key) const {
  if (const auto field = object_.find(key); field != object_.end() && says_off(*field)) read_.insert(key);
}

void ConfigFields::refuse_unread() const {
  std::vector<std::string> off;
  for (const auto& [key, value] : object_.items()) {
    if (read_.contains(key)) continue;
    COCA_CHECK_AS(kBadFile, says_off(value),
                  "{}: field \"{}{}\" ({}) is unknown and may change what the model computes; remove it if it does not",
                  origin_, where_, key, value.dump().substr(0, 80));
    off.push_back(fmt::format("\"{}{}\" ({})", where_, key, value.dump()));
  }
  if (off.empty()) return;
  log_once(LogLevel::kInfo, fmt::format("{}: {} unknown but off, so {} ignored: {}", origin_,
                                        off.size() == 1 ? "one field is" : "some fields are",
                                        off.size() == 1 ? "it is" : "they are", fmt::join(off, ", ")));
}

}  // namespace coca::formats

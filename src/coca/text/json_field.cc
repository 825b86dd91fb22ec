// coca/text/json_field.cc - see json_field.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/json_field.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "coca/base/error.h"
#include "coca/text/utf8.h"

namespace coca::text {

namespace {

// Values in messages are cut; arrays and objects may be huge.
std::string shown(const nlohmann::json& value) {
  constexpr size_t kMost = 60;
  if (value.is_array()) return "an array";
  if (value.is_object()) return "an object";
  const std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return text.size() <= kMost ? text : replace_invalid(std::string_view(text).substr(0, kMost)) + "...";
}

}  // namespace

void JsonField::refuse(std::string_view expected) const {
  fail(ErrorKind::kBadFile, "{}: {}; expected {}", where(), shown(*value_), expected);
}

bool JsonField::has(std::string_view key) const {
  if (!value_->is_object()) refuse("an object");
  const auto found = value_->find(key);
  return found != value_->end() && !found->is_null();
}

JsonField JsonField::at(std::string_view key) const {
  if (!value_->is_object()) refuse("an object");
  const auto found = value_->find(key);
  COCA_CHECK_AS(kBadFile, found != value_->end(), "{}: has no \"{}\"", where(), key);
  return {*found, file_, path_.empty() ? std::string(key) : path_ + "." + std::string(key)};
}

JsonField JsonField::item(size_t index) const {
  return {value_->at(index), file_, fmt::format("{}[{}]", path_, index)};
}

size_t JsonField::size() const {
  if (!value_->is_array()) refuse("an array");
  return value_->size();
}

const std::string& JsonField::string() const {
  if (!value_->is_string()) refuse("a string");
  return value_->get_ref<const std::string&>();
}

int64_t JsonField::integer() const {
  if (!value_->is_number_integer()) refuse("an integer");
  if (value_->is_number_unsigned() && value_->get<uint64_t>() > INT64_MAX) refuse("a smaller integer");
  return value_->get<int64_t>();
}

int32_t JsonField::id() const {
  if (integer() < 0 || integer() > INT32_MAX) refuse(fmt::format("0 to {}", INT32_MAX));
  return static_cast<int32_t>(integer());
}

double JsonField::number() const {
  if (!value_->is_number()) refuse("a number");
  return value_->get<double>();
}

bool JsonField::boolean() const {
  if (!value_->is_boolean()) refuse("true or false");
  return value_->get<bool>();
}

bool JsonField::flag(std::string_view key, bool absent) const { return has(key) ? at(key).boolean() : absent; }

std::string JsonField::text(std::string_view key, std::string_view absent) const {
  return has(key) ? at(key).string() : std::string(absent);
}

void JsonField::only(std::initializer_list<std::string_view> keys) const {
  if (!value_->is_object()) refuse("an object");
  for (const auto& [key, value] : value_->items())
    if (std::ranges::find(keys, std::string_view(key)) == keys.end())
      fail(ErrorKind::kBadFile, "{}: \"{}\" is not known; expected {}", where(), key, fmt::join(keys, ", "));
}

}  // namespace coca::text

// coca/text/json_field.h - one value of a tokenizer's JSON file that knows its place, so that errors can name
// the file, the field, the value and what was expected.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace coca::text {

class JsonField {
 public:
  JsonField(const nlohmann::json& value, std::string file, std::string path = "")
      : value_(&value), file_(std::move(file)), path_(std::move(path)) {}

  const nlohmann::json& value() const { return *value_; }
  std::string where() const { return path_.empty() ? file_ : file_ + ": " + path_; }
  bool null() const { return value_->is_null(); }
  bool has(std::string_view key) const;  // an object's member that is not null
  JsonField at(std::string_view key) const;
  JsonField item(size_t index) const;
  size_t size() const;  // of an array

  const std::string& string() const;
  int64_t integer() const;
  int32_t id() const;  // of a token: 0 or more
  double number() const;
  bool boolean() const;
  // Members of an object, or a default if they are absent or null.
  bool flag(std::string_view key, bool absent) const;
  std::string text(std::string_view key, std::string_view absent) const;

  void only(std::initializer_list<std::string_view> keys) const;  // Error when an object has other members
  [[noreturn]] void refuse(std::string_view expected) const;      // Error kBadFile

 private:
  const nlohmann::json* value_;
  std::string file_, path_;
};

}  // namespace coca::text

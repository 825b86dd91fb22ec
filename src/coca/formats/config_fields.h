// coca/formats/config_fields.h - reads one JSON object field by field, and refuses fields that were not read.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace coca::formats {

// Errors name the file, the field, what was found and what was expected. Null counts as absent. The object must outlive
// this.
class ConfigFields {
 public:
  // where names a nested object in errors: "rope_scaling.", or empty.
  ConfigFields(const nlohmann::json& object, std::string_view origin, std::string where = "");

  std::string_view origin() const { return origin_; }
  bool has(const char* key) const;
  int64_t integer(const char* key) const;
  int64_t integer(const char* key, int64_t otherwise) const { return has(key) ? integer(key) : otherwise; }
  double number(const char* key) const;
  double number(const char* key, double otherwise) const { return has(key) ? number(key) : otherwise; }
  int64_t count(const char* key) const;  // an integer of at least 1
  int64_t count(const char* key, int64_t otherwise) const { return has(key) ? count(key) : otherwise; }
  // A number as the option of that name may be (io/options.h).
  double number_like(std::string_view option, const char* key, double otherwise) const;
  bool boolean(const char* key, bool otherwise) const;
  std::string text(const char* key, std::string otherwise) const;
  std::vector<std::string> texts(const char* key) const;  // a list of strings; empty when absent
  std::vector<double> numbers(const char* key) const;     // a list of numbers
  std::vector<int64_t> integers(const char* key) const;   // a list of integers, or of lists of them, joined
  std::optional<int64_t> optional_id(const char* key) const;
  std::vector<int64_t> ids(const char* key) const;   // one id or a list of them; empty when absent
  const nlohmann::json& raw(const char* key) const;  // has(key) must hold

  bool was_read(std::string_view key) const { return read_.contains(key); }
  // Marks a field as read if it is off (null, false, 0, empty).
  void ignore_off(const char* key) const;
  // Marks fields as read whatever they hold.
  void ignore(std::initializer_list<std::string_view> keys) const;
  // Error for the first field that was not read and that has an effect. Fields that are off (null, false, 0, empty
  // strings, lists and objects) pass; one note in the log names them.
  void refuse_unread() const;

 private:
  const nlohmann::json& at(const char* key, bool (nlohmann::json::*is)() const noexcept, const char* expected) const;

  const nlohmann::json& object_;
  std::string origin_;  // its own: callers give temporaries
  std::string where_;
  mutable std::set<std::string, std::less<>> read_;
};

}  // namespace coca::formats

// coca/io/options.h - the config system: one plain struct per command, one list of its fields.
//
//   struct TrainOptions {
//     int64_t layers = 2;
//     std::optional<double> clip;
//     NormKind norm = NormKind::kLayerNorm;      // an enum with COCA_ENUM_NAMES
//     template <class V> void visit(V&& v) {
//       v.group("Model");                        // heading for what follows
//       v("layers", "number of decoder layers", layers, Least{1});  // else 0
//       v("norm", "normalization", norm);
//       v.group("Training");
//       v("clip", "largest gradient norm; null means no clipping", clip);
//     }
//   };
//
// The defaults are the initializers. The list serves JSON here and command-line flags in tools/ ("max_len"
// becomes --max-len). Field types: int64_t, double, float, bool, std::string, vectors of string, int64_t and
// double, optionals of int64_t, double, string and enums, enums, and structs that bring to_option_json() and
// from_option_json() (and for flags from_option_text()). A value of the wrong type names key, value and
// type; one value stands for a list of it; an unknown key names the nearest known one; keys that are absent keep what
// the struct holds. Texts that are not UTF-8 (names of files) are written and read as names.h says.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "coca/base/enum_names.h"
#include "coca/base/sizes.h"
#include "coca/base/suggest.h"

namespace coca::io {

namespace detail {

template <typename T>
struct IsOptional : std::false_type {};
template <typename T>
struct IsOptional<std::optional<T>> : std::true_type {};
template <typename T>
struct IsVector : std::false_type {};
template <typename T>
struct IsVector<std::vector<T>> : std::true_type {};

// Where a value came from, for messages.
struct OptionPlace {
  std::string_view origin, key;
};

// One value each way. JSON has no infinities and NaN: they are the strings "inf", "-inf", "nan".
nlohmann::ordered_json scalar_to_json(double value);
nlohmann::ordered_json scalar_to_json(float value);               // the shortest decimal of the float
nlohmann::ordered_json scalar_to_json(const std::string& value);  // names of files may be any bytes: see names.h
void scalar_from_json(const nlohmann::json& value, OptionPlace place, int64_t& out);
void scalar_from_json(const nlohmann::json& value, OptionPlace place, double& out);
void scalar_from_json(const nlohmann::json& value, OptionPlace place, float& out);
void scalar_from_json(const nlohmann::json& value, OptionPlace place, bool& out);
void scalar_from_json(const nlohmann::json& value, OptionPlace place, std::string& out);
[[noreturn]] void option_type_error(const nlohmann::json& value, OptionPlace place, std::string_view expected);
// Error unless every key of `object` is in `known`.
void check_option_keys(const nlohmann::json& object, const std::vector<std::string>& known, std::string_view origin);

template <typename T>
nlohmann::ordered_json option_to_json(const T& value) {
  if constexpr (requires { value.to_option_json(); }) {
    return value.to_option_json();
  } else if constexpr (Named<T>) {
    return std::string(enum_name(value));
  } else if constexpr (std::is_floating_point_v<T> || std::is_same_v<T, std::string>) {
    return scalar_to_json(value);
  } else if constexpr (IsOptional<T>::value) {
    return value ? option_to_json(*value) : nlohmann::ordered_json(nullptr);
  } else if constexpr (IsVector<T>::value) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const auto& item : value) list.push_back(option_to_json(item));
    return list;
  } else {
    return nlohmann::ordered_json(value);
  }
}

template <typename T>
void option_from_json(const nlohmann::json& value, OptionPlace place, T& out) {
  if constexpr (requires { out.from_option_json(value, std::string()); }) {
    out.from_option_json(value, std::string(place.origin) + ": \"" + std::string(place.key) + "\"");
  } else if constexpr (Named<T>) {
    std::string text;
    scalar_from_json(value, place, text);
    for (const auto& entry : EnumTraits<T>::names())
      if (entry.name == text) {
        out = entry.value;
        return;
      }
    fail(ErrorKind::kInvalidArgument, "{}: \"{}\" is \"{}\"; expected one of {}", place.origin, place.key, text,
         enum_choices_for<T>(text));
  } else if constexpr (IsOptional<T>::value) {
    if (value.is_null()) {
      out.reset();
      return;
    }
    typename T::value_type item{};
    option_from_json(value, place, item);
    out = std::move(item);
  } else if constexpr (IsVector<T>::value) {
    if (value.is_object() || value.is_null()) option_type_error(value, place, "a list");
    T items;
    for (const auto& element : value.is_array() ? value : nlohmann::json::array({value})) {  // 512 is [512]
      typename T::value_type item{};
      option_from_json(element, place, item);
      items.push_back(std::move(item));
    }
    out = std::move(items);
  } else {
    scalar_from_json(value, place, out);
  }
}

struct OptionWriter {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();

  void group(std::string_view) {}
  template <typename T>
  void operator()(std::string_view name, std::string_view, T& field, Least = {}) {
    object[std::string(name)] = option_to_json(field);
  }
};

struct OptionReader {
  const nlohmann::json& object;
  std::string_view origin;

  void group(std::string_view) {}
  template <typename T>
  void operator()(std::string_view name, std::string_view, T& field, Least = {}) {
    const auto it = object.find(std::string(name));
    if (it != object.end()) option_from_json(*it, {origin, name}, field);
  }
};

struct OptionNames {
  std::vector<std::string> names;

  void group(std::string_view) {}
  template <typename T>
  void operator()(std::string_view name, std::string_view, T&, Least = {}) {
    names.emplace_back(name);
  }
};

// The values that a numeric option of this name may have at all, both ends included; what makes sense together is for
// the command to check. A name means the same in every command, but for its least value (Least). nullopt: any, as of
// seeds, and of fractions that have no range here.
struct OptionRange {
  double least, most;
};
std::optional<OptionRange> option_range(std::string_view name, bool whole);
void check_in_range(std::string_view shown, const OptionRange&, int64_t value, Least);
void check_in_range(std::string_view shown, const OptionRange&, double value, Least);

template <typename T>
void check_option_range(std::string_view shown, std::string_view name, const T& value, Least least) {
  if constexpr (std::is_same_v<T, int64_t> || std::is_floating_point_v<T>) {
    if (const auto range = option_range(name, std::is_same_v<T, int64_t>)) check_in_range(shown, *range, value, least);
  } else if constexpr (IsOptional<T>::value) {
    if (value) check_option_range(shown, name, *value, least);
  } else if constexpr (IsVector<T>::value) {
    for (const auto& item : value) check_option_range(shown, name, item, least);
  }
}

struct OptionRanges {
  void group(std::string_view) {}
  template <typename T>
  void operator()(std::string_view name, std::string_view, T& field, Least least = {}) {
    check_option_range(name, name, field, least);
  }
};

}  // namespace detail

// Error naming the first number out of its range. Flags are checked when they are read, under their names; this is for
// configs that come another way.
template <class S>
void check_option_ranges(S options) {
  options.visit(detail::OptionRanges{});
}

// Every field, in the order of visit().
template <class S>
nlohmann::ordered_json options_to_json(S& options) {
  detail::OptionWriter writer;
  options.visit(writer);
  return std::move(writer.object);
}

// Sets the fields whose keys are present. `origin` names the source in errors. An Error changes nothing.
template <class S>
void options_from_json(S& options, const nlohmann::json& object, std::string_view origin) {
  detail::OptionNames known;
  options.visit(known);
  detail::check_option_keys(object, known.names, origin);
  S changed = options;
  detail::OptionReader reader{object, origin};
  changed.visit(reader);
  options = std::move(changed);
}

}  // namespace coca::io

// coca/base/enum_names.h - one table per enum, or per small struct whose values have names, for printing, parsing,
// help texts and error messages.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "coca/base/error.h"
#include "coca/base/suggest.h"

namespace coca {

template <typename E>
struct EnumName {
  E value;
  std::string_view name;
};

// Specialise for each type that has text: static std::span<const EnumName<E>> names(); static string_view what().
template <typename E>
struct EnumTraits;

template <typename T>
concept Named = requires {
  EnumTraits<T>::names();
};

template <typename E>
std::string_view enum_name(E value) {
  for (const auto& entry : EnumTraits<E>::names())
    if (entry.value == value) return entry.name;
  return "?";
}

template <typename E>
std::string enum_choices() {
  std::string text;
  for (const auto& entry : EnumTraits<E>::names()) {
    if (!text.empty()) text += ", ";
    text += entry.name;
  }
  return text;
}

// The same, and the nearest names if some are close to what was typed.
template <typename E>
std::string enum_choices_for(std::string_view typed) {
  std::vector<std::string> names;
  for (const auto& entry : EnumTraits<E>::names()) names.emplace_back(entry.name);
  return enum_choices<E>() + did_you_mean(typed, names);
}

template <typename E>
E enum_from_name(std::string_view name) {
  for (const auto& entry : EnumTraits<E>::names())
    if (entry.name == name) return entry.value;
  fail(ErrorKind::kInvalidArgument, "{}: unknown value \"{}\"; expected one of {}", EnumTraits<E>::what(), name,
       enum_choices_for<E>(name));
}

}  // namespace coca

// COCA_ENUM_NAMES(coca::MlpKind, "mlp", {coca::MlpKind::kGelu, "gelu"}, ...) - at global namespace scope.
#define COCA_ENUM_NAMES(Type, What, ...)                                \
  template <>                                                           \
  struct coca::EnumTraits<Type> {                                       \
    static constexpr std::string_view what() { return What; }           \
    static std::span<const ::coca::EnumName<Type>> names() {            \
      static constexpr ::coca::EnumName<Type> kNames[] = {__VA_ARGS__}; \
      return kNames;                                                    \
    }                                                                   \
  };

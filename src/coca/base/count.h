// coca/base/count.h - counts with their nouns, and numbers, as text.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <concepts>
#include <limits>
#include <string>
#include <string_view>

namespace coca {

namespace detail {
std::string grouped_digits(std::string digits);
std::string with_word(const std::string& number, std::string_view one, std::string_view many);
}  // namespace detail

// "851,968"
template <std::integral T>
std::string grouped(T number) {
  return detail::grouped_digits(std::to_string(number));
}

// "1 document", "1,203 documents", "0 documents"; `many` for irregular plurals: counted(2, "matrix", "matrices").
template <std::integral T>
std::string counted(T number, std::string_view one, std::string_view many = "") {
  return detail::with_word(grouped(number), one, many);
}

// Removes the sign of a NaN, which means nothing and would be printed as "-nan".
template <std::floating_point T>
T without_nan_sign(T value) {
  return std::isnan(value) ? std::numeric_limits<T>::quiet_NaN() : value;
}

}  // namespace coca

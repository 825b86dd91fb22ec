// coca/base/count.h - how many of what, in words, and numbers as they are shown.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

namespace coca {

std::string grouped(int64_t number);  // "851,968"
// "1 document", "1,203 documents", "0 documents"; `many` for what does not take an s: counted(2, "matrix", "matrices").
std::string counted(int64_t number, std::string_view one, std::string_view many = "");

// A NaN's sign says nothing, and would be printed: "-nan".
template <std::floating_point T>
T without_nan_sign(T value) {
  return std::isnan(value) ? std::numeric_limits<T>::quiet_NaN() : value;
}

}  // namespace coca

// SPDX-License-Identifier: Apache-2.0
#include "coca/base/count.h"

namespace coca::detail {

std::string grouped_digits(std::string digits) {
  const size_t first = digits.starts_with('-') ? 1 : 0;
  for (size_t at = digits.size(); at > first + 3;) digits.insert(at -= 3, 1, ',');
  return digits;
}

std::string with_word(const std::string& number, std::string_view one, std::string_view many) {
  if (number == "1") return number + " " + std::string(one);
  return number + " " + (many.empty() ? std::string(one) + "s" : std::string(many));
}

}  // namespace coca::detail

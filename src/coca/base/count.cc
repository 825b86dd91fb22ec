// SPDX-License-Identifier: Apache-2.0
#include "coca/base/count.h"

namespace coca {

std::string grouped(int64_t number) {
  std::string digits = std::to_string(number);
  const size_t first = number < 0 ? 1 : 0;
  for (size_t at = digits.size(); at > first + 3;) digits.insert(at -= 3, 1, ',');
  return digits;
}

std::string counted(int64_t number, std::string_view one, std::string_view many) {
  const std::string word = number == 1 ? std::string(one) : many.empty() ? std::string(one) + "s" : std::string(many);
  return grouped(number) + " " + word;
}

}  // namespace coca

// coca/base/sizes.h - where options become sizes: the largest count that is taken, products that do not wrap, and the
// memory there is. Every error names the thing, the value and the limit.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace coca {

// Counts (layers, windows, steps, trials) stay within 31 bits, so that products of two of them fit into 64; amounts of text
// within 2^40.
inline constexpr int64_t kMostCount = (int64_t{1} << 31) - 1, kMostTokens = int64_t{1} << 40;

// Error unless |value| <= most.
void check_count(std::string_view name, int64_t value, int64_t most = kMostCount);

// The least that an option may be, where its command has no use for 0 (io/options.h).
struct Least {
  int64_t value = 0;
  bool above = false;  // it must be more
};
inline constexpr Least kAboveZero{.value = 0, .above = true};

struct Factor {
  std::string_view name;
  int64_t value;
};
// The product of factors of 0 or more; Error naming them where it exceeds 63 bits.
int64_t checked_product(std::string_view what, std::initializer_list<Factor> factors);

// RAM and swap, or less where the process or its group may take no more.
int64_t memory_limit();
std::string memory_text(double bytes);  // "3.2 GiB"
// Error where the product of the factors, in bytes, exceeds memory_limit(); `advice` says what to lower.
void check_memory(std::string_view what, std::initializer_list<Factor> factors, std::string_view advice);

}  // namespace coca

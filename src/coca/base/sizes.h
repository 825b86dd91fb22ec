// coca/base/sizes.h - where options become sizes: the largest accepted counts, products that do not overflow, and the
// available memory. Every error names the thing, the value and the limit.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace coca {

// Counts (layers, windows, steps, trials) have at most 31 bits, so that products of two of them fit into 64 bits;
// amounts of text are at most 2^40.
inline constexpr int64_t kMostCount = (int64_t{1} << 31) - 1, kMostTokens = int64_t{1} << 40;

// Error unless |value| <= most.
void check_count(std::string_view name, int64_t value, int64_t most = kMostCount);

// The smallest value of an option, for commands in which 0 makes no sense (io/options.h).
struct Least {
  int64_t value = 0;
  bool above = false;  // the option must be larger than that
};
inline constexpr Least kAboveZero{.value = 0, .above = true};

struct Factor {
  std::string_view name;
  int64_t value;
};
// The product of non-negative factors; Error naming them if it exceeds 63 bits.
int64_t checked_product(std::string_view what, std::initializer_list<Factor> factors);

// RAM and swap, or less if the process or its group has a lower limit.
int64_t memory_limit();
std::string memory_text(double bytes);  // "3.2 GiB"
// Error if the product of the factors, in bytes, exceeds memory_limit(); `advice` says what to lower.
void check_memory(std::string_view what, std::initializer_list<Factor> factors, std::string_view advice);

}  // namespace coca

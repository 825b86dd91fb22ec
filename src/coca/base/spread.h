// coca/base/spread.h - a few of many things in a row, evenly spread: what stands for all of a text where only a part is looked at.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace coca {

// The i-th of `chosen` among `count` things, 0 <= i < chosen <= count: the one in the middle of the i-th of `chosen` equal parts.
// All different and ascending; with chosen == count it is i.
inline int64_t spread_index(int64_t i, int64_t chosen, int64_t count) {
  if (chosen == count) return i;
  const int64_t whole = count / chosen, rest = count % chosen;
  return i * whole + (whole + (2 * i + 1) * rest / chosen) / 2;
}

}  // namespace coca

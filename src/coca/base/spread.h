// coca/base/spread.h - evenly spread samples of a sequence, to represent a whole text of which only a part is used.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace coca {

// The index of the i-th of `chosen` samples among `count` items, 0 <= i < chosen <= count: the middle of the i-th of
// `chosen` equal parts. The indices are distinct and ascending; with chosen == count the index is i.
inline int64_t spread_index(int64_t i, int64_t chosen, int64_t count) {
  if (chosen == count) return i;
  const int64_t whole = count / chosen, rest = count % chosen;
  return i * whole + (whole + (2 * i + 1) * rest / chosen) / 2;
}

}  // namespace coca

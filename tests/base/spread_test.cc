// Evenly spread indices: ascending, each in the middle of its part, whether or not the sizes divide.
// SPDX-License-Identifier: Apache-2.0
#include "coca/base/spread.h"

#include <gtest/gtest.h>

namespace coca::spread_test {
namespace {

TEST(Spread, EachIsTheMiddleOfItsPart) {
  for (int64_t count = 1; count < 40; ++count)
    for (int64_t chosen = 1; chosen <= count; ++chosen)
      for (int64_t i = 0; i < chosen; ++i)
        EXPECT_EQ(spread_index(i, chosen, count), chosen == count ? i : (2 * i + 1) * count / (2 * chosen))
            << i << " of " << chosen << " of " << count;
  EXPECT_EQ(spread_index(63, 64, int64_t{1} << 62), 127 * (int64_t{1} << 55));  // no product overflows
}

}  // namespace
}  // namespace coca::spread_test

// SPDX-License-Identifier: Apache-2.0
#include "coca/base/sizes.h"

#include <gmock/gmock.h>

#include <limits>

#include "coca/base/error.h"

namespace coca::sizes_test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr int64_t kLargest = std::numeric_limits<int64_t>::max(), kSmallest = std::numeric_limits<int64_t>::min();

TEST(Sizes, CountsStayWithin31Bits) {
  for (const int64_t good : {int64_t{0}, int64_t{-1}, kMostCount, -kMostCount})
    EXPECT_NO_THROW(check_count("batch", good)) << good;
  for (const int64_t bad :
       {kMostCount + 1, (int64_t{1} << 32) + 1, int64_t{1} << 62, kLargest, -kMostCount - 1, kSmallest})
    EXPECT_THAT([&] { check_count("batch", bad); },
                ThrowsMessage<Error>(AllOf(HasSubstr("batch is " + std::to_string(bad)), HasSubstr("2147483647"))));
  EXPECT_NO_THROW(check_count("tokens", kMostTokens, kMostTokens));
  EXPECT_THROW(check_count("tokens", kMostTokens + 1, kMostTokens), Error);
}

TEST(Sizes, ProductsDoNotWrap) {
  EXPECT_EQ(checked_product("x", {{"a", 3}, {"b", 4}, {"c", 5}}), 60);
  EXPECT_EQ(checked_product("x", {{"a", kLargest}, {"b", kLargest}, {"c", 0}}), 0);
  EXPECT_EQ(checked_product("x", {{"a", kLargest}, {"b", 1}}), kLargest);
  EXPECT_THAT(
      [] {
        checked_product("a step", {{"batch", int64_t{1} << 32}, {"length", int64_t{1} << 31}});
      },
      ThrowsMessage<Error>(AllOf(HasSubstr("a step: batch 4294967296 x length 2147483648"), HasSubstr("2^63 - 1"))));
  EXPECT_THAT([] { checked_product("a step", {{"batch", -2}}); }, ThrowsMessage<Error>(HasSubstr("batch is -2")));
}

TEST(Sizes, TooMuchMemoryIsNamed) {
  EXPECT_GT(memory_limit(), int64_t{1} << 24);
  EXPECT_NO_THROW(check_memory("a step", {{"batch", 2}, {"bytes", 4}}, "lower the batch"));
  EXPECT_THAT(
      [] {
        check_memory("a step", {{"batch", kLargest}, {"length", kLargest}}, "lower the batch");
      },
      ThrowsMessage<Error>(AllOf(HasSubstr("a step: batch 9223372036854775807 x length"), HasSubstr("EiB"),
                                 HasSubstr("lower the batch"))));
  EXPECT_EQ(memory_text(3.5 * 1024 * 1024 * 1024), "3.5 GiB");
}

}  // namespace
}  // namespace coca::sizes_test

// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/cast.h"

#include <bit>

#include "ops/op_test.h"

namespace coca::test::cast_test {
namespace {

// For every bf16 pattern: the neighbouring floats, the tie above it, and the neighbours of that tie.
std::vector<float> awkward_floats() {
  std::vector<float> values;
  for (uint32_t high = 0; high < 0x10000; ++high)
    for (uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      values.push_back(std::bit_cast<float>(high << 16 | low));
  return values;
}

TEST(Cast, BitsAreBF16sOnEveryTarget) {
  const std::vector<float> values = awkward_floats();
  const Tensor x = tensor_of<float>({static_cast<int64_t>(values.size())}, values);
  const auto run = [&](Context& context) {
    Tensor y_there(x.shape(), DType::kBF16, context.memory()), back_there(x.shape(), DType::kF32, context.memory());
    ops::cast(context, {.x = to_device(context, x), .y = y_there});
    ops::cast(context, {.x = y_there, .y = back_there});
    const Tensor y = to_host(context, y_there), back = to_host(context, back_there);
    for (size_t i = 0; i < values.size(); ++i) {
      const BF16 want(values[i]);
      ASSERT_EQ(y.values<BF16>()[i].bits, want.bits) << std::hex << std::bit_cast<uint32_t>(values[i]);
      ASSERT_EQ(std::bit_cast<uint32_t>(back.values<float>()[i]), uint32_t{want.bits} << 16);
      ASSERT_EQ(std::isnan(back.values<float>()[i]), std::isnan(values[i]));
    }
  };
  for_each_way({"cast"}, run);
}

TEST(Cast, RoundsToNearestEven) {
  const auto bits = [](uint32_t u) { return BF16(std::bit_cast<float>(u)).bits; };
  EXPECT_EQ(bits(0x3f807fffu), 0x3f80);  // below the tie
  EXPECT_EQ(bits(0x3f808000u), 0x3f80);  // tie: to even
  EXPECT_EQ(bits(0x3f818000u), 0x3f82);
  EXPECT_EQ(bits(0x3f808001u), 0x3f81);
  EXPECT_EQ(bits(0x7f7f8000u), 0x7f80);  // overflows to infinity
  EXPECT_EQ(bits(0x7f800001u), 0x7fc0);  // NaN, not infinity
  EXPECT_EQ(bits(0xffffffffu), 0xffff);
  EXPECT_EQ(bits(0x00008001u), 0x0001);  // denormals are kept
}

TEST(Cast, RaggedEndsOnEveryTarget) {
  for (int64_t n : {1, 3, 15, 17, 31, 33, 1031})
    for_each_way({"cast"}, [&](Context& context) {
      const auto values = random_values(n, 1, -100, 100);
      Guarded x(context, 1, n, values), back(context, 1, n);
      GuardedOf<BF16> y(context, 1, n);
      ops::cast(context, {.x = x.vector(), .y = y.vector()});
      ops::cast(context, {.x = y.vector(), .y = back.vector()});
      EXPECT_EQ(y.values(), as_stored<BF16>(values));
      EXPECT_EQ(back.values(), y.values());
      y.expect_intact("y");
      back.expect_intact("back");
    });
}

TEST(Cast, Errors) {
  Context context;
  Tensor x({4, 8}), y({4, 8}), short_y({4, 7}, DType::kBF16);
  const Tensor ids = int_tensor({1, 2});
  expect_error([&] { ops::cast(context, {.x = ids, .y = y}); }, "[cast] x has type I32; expected F32 or BF16");
  expect_error([&] { ops::cast(context, {.x = x, .y = y}); }, "[cast] y has type F32; expected BF16");
  expect_error([&] { ops::cast(context, {.x = x, .y = short_y}); }, "[cast] y has shape [4, 7]; expected [4, 8]");
  expect_error([&] { ops::cast(context, {.x = x.ref().narrow(1, 0, 4), .y = y}); },
               "[cast] x [4, 4] must be contiguous");
}

}  // namespace
}  // namespace coca::test::cast_test

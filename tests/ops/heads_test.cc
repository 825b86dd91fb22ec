// Heads with any strides are zeroed, copied and added without touching the heads between them. Types may be mixed, and
// sums are rounded once.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/heads.h"

#include <algorithm>
#include <numeric>

#include "ops/op_test.h"

namespace coca::test::heads_test {
namespace {

constexpr int64_t B = 2, N = 3, H = 2;

Tensor random(const Dims& shape, DType type, uint64_t seed) {
  const std::vector<float> values = random_values(shape.product(), seed);
  return type == DType::kF32 ? tensor_of<float>(shape, values) : tensor_of<BF16>(shape, values);
}

// The first half of the heads of `whole` [B, N, 2 H, D] holds `wanted`; the other heads are unchanged.
void expect_heads(Context& cx, const Tensor& whole, const Tensor& before, const std::vector<float>& wanted) {
  const int64_t D = whole.size(3);
  std::vector<float> all = float_values(before);
  for (int64_t row = 0; row < B * N; ++row)
    std::copy_n(wanted.begin() + row * H * D, H * D, all.begin() + row * 2 * H * D);
  EXPECT_EQ(float_values(to_host(cx, whole)), all);
}

void run_case(Context& cx, int64_t D, DType from_type, DType to_type) {
  SCOPED_TRACE(fmt::format("{} to {}, D={}", dtype_name(from_type), dtype_name(to_type), D));
  const Tensor from = random({B, N, H, D}, from_type, 1), before = random({B, N, 2 * H, D}, to_type, 2);
  const Tensor from_there = to_device(cx, from);
  Tensor to = to_device(cx, before);
  const MutTensorRef part = to.ref().narrow(2, 0, H);
  const std::vector<float> x = float_values(from), y = float_values(before);
  std::vector<float> sum = x, copy = x;
  for (size_t i = 0; i < x.size(); ++i) {
    const auto row = i / static_cast<size_t>(H * D);
    sum[i] += y[i + row * static_cast<size_t>(H * D)];
  }
  if (to_type == DType::kBF16) {
    sum = as_stored<BF16>(sum);
    copy = as_stored<BF16>(copy);
  }
  ops::add_heads(cx, from_there, part);
  expect_heads(cx, to, before, sum);
  ops::copy_heads(cx, from_there, part);
  expect_heads(cx, to, before, copy);
  ops::zero_heads(cx, part);
  expect_heads(cx, to, before, std::vector<float>(x.size()));
}

TEST(Heads, ZeroCopyAndAddOnlyTheirHeads) {
  for_each_way({"heads"}, [](Context& cx) {
    for (const int64_t D : {5, 4, 64})  // vectors of one, four and eight numbers
      for (const DType from_type : {DType::kF32, DType::kBF16})
        for (const DType to_type : {DType::kF32, DType::kBF16}) run_case(cx, D, from_type, to_type);
  });
}

template <typename T>
void copy_whole(Context& cx) {
  SCOPED_TRACE(dtype_name(DTypeOf<T>::value));
  Tensor from({1, 3, 2, 8}, DTypeOf<T>::value), to({1, 3, 2, 8}, DTypeOf<T>::value, cx.memory());
  std::iota(from.values<T>().begin(), from.values<T>().end(), T{1});
  ops::copy_heads(cx, to_device(cx, from), to);
  const Tensor back = to_host(cx, to);
  EXPECT_TRUE(std::ranges::equal(back.values<T>(), from.values<T>()));
}

TEST(Heads, CopiesAnyType) {
  for_each_way({"heads"}, [](Context& cx) {
    copy_whole<uint8_t>(cx);
    copy_whole<uint16_t>(cx);
    copy_whole<int32_t>(cx);
    copy_whole<int64_t>(cx);
  });
}

TEST(Heads, ShapesAreChecked) {
  Context cx;
  Tensor a({B, N, H, 5}), b({B, N, H, 6});
  EXPECT_THROW(ops::add_heads(cx, a, b), Error);
  EXPECT_THROW(ops::copy_heads(cx, a, b), Error);
  EXPECT_THROW(ops::zero_heads(cx, MutTensorRef()), Error);
}

}  // namespace
}  // namespace coca::test::heads_test

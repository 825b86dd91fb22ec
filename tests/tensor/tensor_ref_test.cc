// Dims, refs and views: strides, narrow, select, reshape, and invalid arguments.
// SPDX-License-Identifier: Apache-2.0
#include "coca/tensor/tensor_ref.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <type_traits>
#include <vector>

#include "coca/tensor/tensor.h"
#include "support/message.h"

namespace coca::tensor_ref_test {
namespace {

using test::message;
using ::testing::HasSubstr;

// 0, 1, 2, ... in a tensor of the given shape.
Tensor counted(const Dims& shape) {
  Tensor t(shape);
  std::iota(t.values<float>().begin(), t.values<float>().end(), 0.0f);
  return t;
}

TEST(Dims, BasicsAndText) {
  const Dims d = {2, 3, 4};
  EXPECT_EQ(d.rank, 3);
  EXPECT_EQ(d.product(), 24);
  EXPECT_EQ(d.text(), "[2, 3, 4]");
  EXPECT_EQ(Dims().product(), 1);  // a scalar
  EXPECT_EQ(Dims().text(), "[]");
  EXPECT_EQ(d, (Dims{2, 3, 4}));
  EXPECT_FALSE(d == (Dims{2, 3}));
  EXPECT_FALSE(d == (Dims{2, 3, 5}));
  EXPECT_EQ(contiguous_strides(d), (Dims{12, 4, 1}));
  EXPECT_THAT(message([] { Dims{1, 2, 3, 4, 5, 6}; }), HasSubstr("at most 5 dimensions, not 6"));
}

TEST(Ref, SizesCountFromEitherEnd) {
  const Tensor t({2, 3, 4}, DType::kBF16);
  EXPECT_EQ(t.ref().size(-1), 4);
  EXPECT_EQ(t.ref().stride(0), 12);
  EXPECT_EQ(t.ref().stride(-2), 4);
  EXPECT_EQ(t.ref().numel(), 24);
  EXPECT_EQ(t.ref().bytes(), 48u);
}

TEST(Ref, NarrowSharesMemory) {
  Tensor t = counted({4, 3});
  const MutTensorRef rows = t.ref().narrow(0, 1, 2);
  EXPECT_EQ(rows.shape, (Dims{2, 3}));
  EXPECT_TRUE(rows.contiguous());
  EXPECT_EQ(rows.as<float>()[0], 3.0f);
  const MutTensorRef columns = t.ref().narrow(1, 1, 2);
  EXPECT_FALSE(columns.contiguous());
  EXPECT_EQ(columns.strides, (Dims{3, 1}));
  columns.view<float, 2>()(2, 1) = -1.0f;
  EXPECT_EQ(t.values<float>()[8], -1.0f);
  EXPECT_EQ(t.ref().narrow(0, 4, 0).numel(), 0);  // empty at the end is allowed
}

TEST(Ref, NarrowRefusesWhatIsOutside) {
  const Tensor t({4, 3});
  EXPECT_THAT(message([&] { t.ref().narrow(0, 3, 2); }), HasSubstr("narrow(0, 3, 2) of shape [4, 3]"));
  EXPECT_THROW(t.ref().narrow(2, 0, 1), Error);
  EXPECT_THROW(t.ref().narrow(-1, 0, 1), Error);
  EXPECT_THROW(t.ref().narrow(0, -1, 1), Error);
  EXPECT_THROW(t.ref().narrow(0, 0, -1), Error);
}

TEST(Ref, SelectDropsADimension) {
  Tensor t = counted({2, 3, 4});
  const TensorRef middle = TensorRef(t).select(1, 2);
  EXPECT_EQ(middle.shape, (Dims{2, 4}));
  EXPECT_EQ(middle.strides, (Dims{12, 1}));
  EXPECT_EQ((middle.view<float, 2>()(1, 3)), 1 * 12 + 2 * 4 + 3);
  const MutTensorRef one = t.ref().select(0, 1).select(0, 0).select(0, 3);
  EXPECT_EQ(one.rank(), 0);
  EXPECT_EQ(*one.as<float>(), 15.0f);
  EXPECT_THROW(t.ref().select(1, 3), Error);
}

TEST(Ref, ReshapeKeepsTheElements) {
  Tensor t = counted({2, 3, 4});
  const MutTensorRef flat = t.ref().reshape({6, 4});
  EXPECT_EQ((flat.view<float, 2>()(5, 3)), 23.0f);
  EXPECT_EQ(flat.data, t.ref().data);
  EXPECT_THAT(message([&] { t.ref().reshape({5, 5}); }), HasSubstr("[2, 3, 4] to [5, 5]: element counts differ"));
  EXPECT_THAT(message([&] { t.ref().narrow(2, 0, 2).reshape({12}); }), HasSubstr("reshape of a strided tensor"));
}

TEST(Ref, UnitDimensionsDoNotBreakContiguity) {
  Tensor t = counted({3, 4});
  const TensorRef column = TensorRef(t).narrow(0, 1, 1);  // [1, 4]
  EXPECT_TRUE(column.contiguous());
  const TensorRef odd(t.ref().data, DType::kF32, {1, 4}, {99, 1}, kHost);
  EXPECT_TRUE(odd.contiguous());
  EXPECT_EQ(odd.reshape({4}).strides, (Dims{1}));
}

TEST(Ref, TypeAndRankAreChecked) {
  const Tensor t({2, 2}, DType::kI32);
  EXPECT_THAT(message([&] { t.ref().as<float>(); }), HasSubstr("type I32 where F32 is expected"));
  EXPECT_THAT(message([&] { (t.ref().view<int32_t, 3>()); }), HasSubstr("shape [2, 2] where rank 3 is expected"));
  EXPECT_NO_THROW(t.ref().as<int32_t>());
}

TEST(Ref, EmptyRefsPassAnyCheck) {
  const TensorRef none;
  EXPECT_TRUE(none.empty());
  EXPECT_EQ(none.as<float>(), nullptr);
  EXPECT_EQ(none.as<int64_t>(), nullptr);
  EXPECT_TRUE((none.view<float, 3>().empty()));
}

TEST(View, IndexesAndPartialPointers) {
  Tensor t = counted({2, 3, 4});
  const auto v = t.ref().view<float, 3>();
  EXPECT_EQ(v(1, 2, 3), 23.0f);
  EXPECT_EQ(*v.ptr(1), 12.0f);
  EXPECT_EQ(*v.ptr(1, 1), 16.0f);
  const TensorView<const float, 3> read_only = v;
  EXPECT_EQ(read_only(0, 1, 0), 4.0f);
  static_assert(std::is_trivially_copyable_v<TensorView<float, 3>>);
  static_assert(!std::is_convertible_v<TensorView<const float, 3>, TensorView<float, 3>>);
  static_assert(!std::is_convertible_v<TensorRef, MutTensorRef>);
  static_assert(std::is_convertible_v<MutTensorRef, TensorRef>);
#ifndef NDEBUG
  EXPECT_THROW(v(2, 0, 0), Error);
  EXPECT_THROW(v(0, -1, 0), Error);
#endif
}

TEST(Owner, AlignedZeroedAndMoveOnly) {
  Tensor t({3, 5});
  EXPECT_EQ(reinterpret_cast<uintptr_t>(t.ref().data) % 64, 0u);
  for (const float v : t.values<float>()) EXPECT_EQ(v, 0.0f);
  const void* data = t.ref().data;
  const Tensor moved = std::move(t);
  EXPECT_EQ(moved.ref().data, data);
  EXPECT_EQ(moved.shape(), (Dims{3, 5}));
  static_assert(!std::is_copy_constructible_v<Tensor>);
  EXPECT_TRUE(Tensor().empty());
  EXPECT_FALSE(Tensor(Dims{0, 4}).empty());  // no elements, but a tensor
  EXPECT_EQ(Tensor(Dims{0, 4}).numel(), 0);
  EXPECT_THROW(Tensor(Dims{-1, 4}), Error);
}

// A ref derived from another one is on the same device.
TEST(TensorRef, EveryViewKeepsItsDevice) {
  std::vector<float> memory(24);
  const Device gpu{DeviceKind::kCuda, 1};
  const MutTensorRef t(memory.data(), DType::kF32, {2, 3, 4}, gpu);
  EXPECT_EQ(t.resized({2, 5}).device, gpu);
  EXPECT_EQ(t.reshape({6, 4}).device, gpu);
  EXPECT_EQ(t.narrow(1, 1, 2).device, gpu);
  EXPECT_EQ(t.select(0, 1).device, gpu);
  EXPECT_EQ(TensorRef(t).device, gpu);
  EXPECT_EQ(t.resized({2, 5}).data, t.data);
  EXPECT_THAT(message([&] { t.resized({5, 5}); }), HasSubstr("[2, 3, 4] has no room for [5, 5]"));
}

}  // namespace
}  // namespace coca::tensor_ref_test

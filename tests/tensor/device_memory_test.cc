// Tensors, arenas, contexts and transfers on a device, tested with a fake device that has separate memory.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <optional>

#include "coca/tensor/arena.h"
#include "coca/tensor/transfer.h"
#include "support/fake_device.h"
#include "support/message.h"

namespace coca::device_memory_test {
namespace {

using test::FakeDevice;
using test::message;
using ::testing::Each;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

Tensor counted(const Dims& shape) {
  Tensor t(shape);
  std::iota(t.values<float>().begin(), t.values<float>().end(), 1.0f);
  return t;
}

TEST(DeviceTensor, LiesOnTheDeviceAndGivesItsMemoryBack) {
  FakeDevice gpu(1 << 20);
  {
    Tensor t({4, 8}, DType::kF32, &gpu);
    EXPECT_EQ(t.device().text(), "cuda:0");
    EXPECT_EQ(t.memory(), &gpu);
    EXPECT_TRUE(gpu.owns(t.ref().data, 128));
    EXPECT_EQ(t.ref().device, gpu.device());
    const MutTensorRef ref = t;
    EXPECT_EQ(TensorRef(ref).device, gpu.device());
    EXPECT_EQ(ref.reshape({32}).device, gpu.device());
    EXPECT_EQ(ref.narrow(0, 1, 2).device, gpu.device());
    EXPECT_EQ(TensorRef(ref).select(1, 3).device, gpu.device());
    Tensor moved = std::move(t);
    EXPECT_EQ(moved.device(), gpu.device());
    EXPECT_EQ(gpu.used(), 128u);
  }
  EXPECT_EQ(gpu.used(), 0u);
  EXPECT_TRUE(Tensor({2}).device().is_cpu());
}

TEST(DeviceTensor, ItsNumbersAreNotReadOnTheHost) {
  FakeDevice gpu(1 << 20);
  Tensor t({4, 8}, DType::kF32, &gpu);
  EXPECT_EQ(message([&] { t.values<float>(); }), "tensor of shape [4, 8] lies on cuda:0; expected it on the host");
  EXPECT_THAT(message([&] { std::as_const(t).values<float>(); }), HasSubstr("expected it on the host"));
}

TEST(Transfer, ThereBackAndWithin) {
  FakeDevice gpu(1 << 20);
  Context cx(&gpu);
  const Tensor host = counted({3, 5});
  const Tensor there = to_device(cx, host);
  EXPECT_EQ(there.device(), gpu.device());
  Tensor again({3, 5}, DType::kF32, &gpu);
  EXPECT_THAT(to_host(cx, again).values<float>(), Each(0.0f)) << "memory of a device is zero-filled";
  transfer(cx, again, there);
  transfer(cx, again.ref().narrow(0, 2, 1), there.ref().narrow(0, 0, 1));
  const Tensor back = to_host(cx, again);
  EXPECT_TRUE(back.device().is_cpu());
  EXPECT_THAT(back.values<float>(), ElementsAreArray({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3, 4, 5}));

  Context cpu;
  EXPECT_THAT(to_device(cpu, host).values<float>(), ElementsAreArray(host.values<float>()));
  EXPECT_THAT(to_host(cpu, host).values<float>(), ElementsAreArray(host.values<float>()));
  to_host(cx, Tensor({0, 4}, DType::kF32, &gpu));
}

TEST(Transfer, IsQueuedUntilSynchronize) {
  FakeDevice gpu(1 << 20);
  Context cx(&gpu);
  Buffer pinned = allocate_pinned(&gpu, 60, "a batch");
  EXPECT_EQ(gpu.pinned(), 1u);
  const MutTensorRef staged(pinned.get(), DType::kF32, {3, 5}, kHost);
  const Tensor there = to_device(cx, counted({3, 5}));
  transfer(cx, staged, there);
  EXPECT_EQ(staged.as<float>()[14], 0.0f);
  gpu.synchronize();
  EXPECT_EQ(staged.as<float>()[14], 15.0f);
  pinned.reset();
  EXPECT_EQ(gpu.pinned(), 0u);
  const Buffer plain = allocate_pinned(nullptr, 60, "a batch");  // host memory
  EXPECT_FALSE(plain.get_deleter().pinned);
}

TEST(SentTensor, TheHostMayWriteAgainAtOnce) {
  FakeDevice gpu(1 << 20);
  Context cx(&gpu);
  SentTensor rows({2, 3}, DType::kF32, &gpu);
  EXPECT_TRUE(gpu.owns(rows.ref().data, 24));
  std::iota(rows.host().as<float>(), rows.host().as<float>() + 6, 1.0f);
  rows.send();
  std::fill_n(rows.host().as<float>(), 6, 9.0f);
  EXPECT_THAT(to_host(cx, rows.ref()).values<float>(), ElementsAreArray({1, 2, 3, 4, 5, 6}));
  rows.send(2);
  EXPECT_THAT(to_host(cx, rows.ref()).values<float>(), ElementsAreArray({9, 9, 3, 4, 5, 6}));
  SentTensor here({2}, DType::kF32, nullptr);
  EXPECT_EQ(here.ref().data, here.host().data) << "on the CPU there is one tensor";
  here.send();
}

TEST(FetchedTensor, IsACopyWithTheSameStrides) {
  FakeDevice gpu(1 << 20);
  Context cx(&gpu), cpu(nullptr);
  const Tensor host = counted({3, 5}), there = to_device(cx, host);
  FetchedTensor fetched;
  const TensorRef part = fetched.now(cx, TensorRef(there).narrow(1, 1, 2));
  EXPECT_TRUE(part.device.is_cpu());
  EXPECT_EQ(part.shape, Dims({3, 2}));
  EXPECT_EQ((part.view<float, 2>()(2, 1)), 13.0f);
  fetched.queue(cx, TensorRef(there).narrow(0, 1, 1));
  cx.synchronize();
  EXPECT_EQ(fetched.ref().as<float>()[0], 6.0f);
  EXPECT_EQ(gpu.pinned(), 1u) << "the memory is kept";
  EXPECT_EQ(fetched.now(cpu, host).data, host.ref().data) << "what is on the host is not copied";
  FetchedTensor kept;
  kept.queue(cpu, host);
  EXPECT_NE(kept.ref().data, host.ref().data);
  EXPECT_EQ(kept.ref().as<float>()[14], 15.0f);
}

TEST(Transfer, ZerosAreQueued) {
  FakeDevice gpu(1 << 20);
  Context cx(&gpu), cpu(nullptr);
  Tensor host = counted({3, 5}), there = to_device(cx, host);
  set_zero(cx, there.ref().narrow(0, 1, 1));
  EXPECT_THAT(to_host(cx, there).values<float>(), ElementsAreArray({1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 11, 12, 13, 14, 15}));
  there.set_zero();
  EXPECT_THAT(to_host(cx, there).values<float>(), Each(0.0f));
  set_zero(cpu, host.ref().narrow(0, 1, 2));
  EXPECT_EQ(host.values<float>()[4], 5.0f);
  EXPECT_EQ(host.values<float>()[5], 0.0f);
  host.set_zero();
  EXPECT_THAT(host.values<float>(), Each(0.0f));
}

TEST(Transfer, Errors) {
  FakeDevice gpu(1 << 20), other(1 << 20, 1);
  Context cx(&gpu), cpu;
  const Tensor host({3, 5}), there({3, 5}, DType::kF32, &gpu), elsewhere({3, 5}, DType::kF32, &other);
  Tensor to({3, 5}), wide({5, 3}), half({3, 5}, DType::kBF16);
  EXPECT_EQ(message([&] { transfer(cx, to, elsewhere); }),
            "[transfer] from [3, 5] lies on cuda:1; expected cpu or cuda:0");
  EXPECT_THAT(message([&] { transfer(cpu, to, there); }), HasSubstr("from [3, 5] lies on cuda:0; expected cpu"));
  EXPECT_EQ(message([&] { transfer(cx, wide, there); }),
            "[transfer] to is [5, 3] F32, from [3, 5] F32; expected the same");
  EXPECT_THAT(message([&] { transfer(cx, half, there); }), HasSubstr("to is [3, 5] BF16"));
  EXPECT_THAT(message([&] { transfer(cx, to.ref().narrow(1, 0, 2), host.ref().narrow(1, 0, 2)); }),
              HasSubstr("to [3, 2] must be contiguous"));
  EXPECT_THAT(message([&] { transfer(cx, to, TensorRef()); }), HasSubstr("from [] is missing"));
}

TEST(DeviceContext, ScratchLiesOnTheDevice) {
  FakeDevice gpu(1 << 20);
  Context cx(&gpu);
  EXPECT_EQ(cx.device(), gpu.device());
  EXPECT_TRUE(gpu.owns(cx.scratch(1000), 1000));
  const MutTensorRef t = cx.scratch_tensor({10, 10});
  EXPECT_TRUE(gpu.owns(t.data, t.bytes()));
  EXPECT_EQ(t.device, gpu.device());
  EXPECT_TRUE(Context().device().is_cpu());
  EXPECT_EQ(
      message([&] { cx.scratch(1 << 21); }),
      "out of memory on cuda:0 (a fake): no 2.0 MiB for the scratch memory of an op; 1.0 MiB of 1.0 MiB are free");
  EXPECT_TRUE(gpu.owns(cx.scratch(1000), 1000)) << "after the failure";
}

TEST(DeviceContext, TheDefaultDevice) {
  FakeDevice gpu(1 << 20);
  set_default_context_options({}, &gpu);
  EXPECT_EQ(Context().device(), gpu.device());
  EXPECT_TRUE(Context(nullptr).device().is_cpu());
  set_default_context_options({});
  EXPECT_TRUE(Context().device().is_cpu());
}

// What grows little by little, as the cache of a text does, is not allocated anew each time.
TEST(DeviceContext, ScratchGetsRoomToGrow) {
  FakeDevice gpu(1 << 20);
  Context cx(&gpu);
  cx.scratch(1000);
  const size_t blocks = gpu.allocations();
  for (size_t bytes = 1001; bytes <= 1250; ++bytes) EXPECT_TRUE(gpu.owns(cx.scratch(bytes), bytes));
  EXPECT_EQ(gpu.allocations(), blocks + 1);
}

TEST(DeviceArena, IsPlannedAsOnTheHost) {
  FakeDevice gpu(1 << 20);
  ArenaPlan plan;
  MutTensorRef a, b;
  plan.add("a", {3, 5}, DType::kF32, &a);
  plan.add("b", {1000}, DType::kF32, &b);
  std::optional<Arena> arena(std::in_place, plan, &gpu);
  EXPECT_EQ(gpu.used(), plan.bytes());
  for (const MutTensorRef& t : {a, b}) {
    EXPECT_TRUE(gpu.owns(t.data, t.bytes()));
    EXPECT_EQ(t.device, gpu.device());
  }
  Arena later(&gpu);
  later.bind(plan);
  EXPECT_EQ(gpu.used(), 2 * plan.bytes());
  arena.reset();
  EXPECT_EQ(gpu.used(), plan.bytes());
}

TEST(OutOfMemory, NamesWhatHowMuchAndWhatToLower) {
  FakeDevice gpu(1 << 20);
  const Tensor taken({1 << 17}, DType::kF32, &gpu);  // half of the device's memory
  ArenaPlan plan;
  MutTensorRef a, b;
  plan.add("layer.0.q", {3, 5}, DType::kF32, &a);
  plan.add("layer.0.scores", {1 << 20, 3}, DType::kBF16, &b);
  EXPECT_EQ(message([&] { Arena(plan, &gpu); }),
            "out of memory on cuda:0 (a fake): no 6.0 MiB for 2 activations, the largest layer.0.scores [1048576, 3] "
            "BF16 (a smaller batch or "
            "shorter sequences need less); 0.5 MiB of 1.0 MiB are free");
  EXPECT_TRUE(b.empty());
  EXPECT_EQ(message([&] { Tensor({1 << 18}, DType::kF32, &gpu); }),
            "out of memory on cuda:0 (a fake): no 1.0 MiB for a tensor of shape [262144] and type F32; 0.5 MiB of 1.0 "
            "MiB are free");
}

TEST(OutOfMemory, OnTheHostAsWell) {
  constexpr int64_t kTooMany = int64_t{1} << 58;  // an exbibyte of floats
  EXPECT_EQ(message([] { Tensor({kTooMany}); }),
            "out of memory: no 1099511627776.0 MiB for a tensor of shape [288230376151711744] and type F32");
  ArenaPlan small, huge;
  MutTensorRef a, b;
  small.add("small", {16}, DType::kF32, &a);
  huge.add("huge", {kTooMany}, DType::kF32, &b);
  Arena arena(small);
  EXPECT_THAT(message([&] { arena.bind(huge); }),
              HasSubstr("for 1 activation, the largest huge [288230376151711744] F32"));
  EXPECT_EQ(arena.bytes(), 0u);
  arena.bind(small);  // the arena can still be used
  a.as<float>()[15] = 1.0f;
}

}  // namespace
}  // namespace coca::device_memory_test

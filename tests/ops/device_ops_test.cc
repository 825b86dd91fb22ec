// Ops and devices: operands and contexts on a device without kernels are refused by name, before anything is touched; and the tests' own
// guarded tensors work on a device as they do on the host.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest-spi.h>

#include "coca/ops/attention.h"
#include "coca/ops/linear.h"
#include "coca/ops/norm.h"
#include "ops/op_test.h"
#include "support/fake_device.h"

namespace coca::test {
namespace {

TEST(DeviceOps, OperandsMustLieWhereTheOpRuns) {
  FakeDevice gpu(1 << 20);
  Context cpu;
  const Tensor x({4, 8}), w({8}), there({4, 8}, DType::kF32, &gpu);
  Tensor y({4, 8}), y_there({4, 8}, DType::kF32, &gpu);
  expect_error([&] { ops::norm_forward(cpu, {.x = there, .w = w, .y = y}); }, "[norm] x [4, 8] lies on cuda:0; expected cpu");
  expect_error([&] { ops::norm_forward(cpu, {.x = x, .w = w, .y = y_there}); }, "[norm] y [4, 8] lies on cuda:0; expected cpu");
  const Tensor matrix({8, 8}, DType::kF32, &gpu);
  expect_error([&] { ops::linear_forward(cpu, {.x = x, .w = matrix, .y = y}); }, "[linear] w [8, 8] lies on cuda:0; expected cpu");
  const Tensor q({1, 4, 2, 8}), k_there({1, 4, 2, 8}, DType::kF32, &gpu);
  Tensor o({1, 4, 2, 8});
  expect_error([&] { ops::attention_forward(cpu, {.scale = 1.0f}, {.q = q, .k = k_there, .v = q, .o = o}); }, "lies on cuda:0; expected cpu");
}

TEST(DeviceOps, EveryOpSaysWhereItCannotRun) {
  FakeDevice gpu(1 << 20);
  const Context cx(&gpu);
  for (const ops::OpImpls& op : ops::op_impls())
    if (op.cuda.empty())
      expect_error([&] { ops::choose_impl(cx, op.op); }, fmt::format("[{}] has no implementation on cuda:0; expected cpu", op.op));
}

// What this machine and build have decides what is said; that something is said does not.
TEST(DeviceOps, DevicesByName) {
  EXPECT_EQ(ops::device_memory(parse_device("cpu")), nullptr);
  const ops::Gpus gpus = ops::gpus();
  EXPECT_EQ(gpus.list.empty(), !gpus.none.empty());
  if (gpus.list.empty()) expect_error([] { ops::device_memory(parse_device("cuda")); }, "cuda:0 cannot be used: " + gpus.none);
  else EXPECT_EQ(ops::device_memory(parse_device("cuda"))->device().text(), "cuda:0");
}

TEST(GuardedOnADevice, HoldsItsValuesThere) {
  FakeDevice gpu(1 << 20);
  Context cx(&gpu);
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  Guarded g(cx, 2, 3, values, 2);
  EXPECT_EQ(g.values(), values);
  EXPECT_EQ(g.ref().device, gpu.device());
  EXPECT_TRUE(gpu.owns(g.ref().data, 8 * sizeof(float)));
  EXPECT_EQ(g.ref().stride(0), 5);
  g.expect_intact("as made");
}

// The fake's memory is the host's, so that a "kernel" here is an assignment.
TEST(GuardedOnADevice, StrayAndMissingWritesShow) {
  static FakeDevice gpu(1 << 20);
  static Context cx(&gpu);
  static Guarded* g = nullptr;
  Guarded all(cx, 2, 3, 2), some(cx, 2, 3), stray(cx, 2, 3, 2), before(cx, 2, 3);
  gpu.synchronize();
  for (Guarded* each : {&all, &stray, &before})
    for (int64_t m = 0; m < 2; ++m)
      for (int64_t c = 0; c < 3; ++c) each->ref().view<float, 2>()(m, c) = 1.0f;
  all.expect_intact("all");
  g = &some;
  EXPECT_FATAL_FAILURE(g->expect_intact("some"), "some: not written at row 0 column 0");
  stray.ref().as<float>()[3] = 1.0f;
  g = &stray;
  EXPECT_FATAL_FAILURE(g->expect_intact("stray"), "stray: stray write at row 0 column 3");
  before.ref().as<float>()[-1] = 1.0f;
  g = &before;
  EXPECT_FATAL_FAILURE(g->expect_intact("before"), "before: stray write at row -1");
}

}  // namespace
}  // namespace coca::test

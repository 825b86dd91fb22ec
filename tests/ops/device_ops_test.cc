// Ops and devices: operands and contexts on a device without kernels are refused by name before anything is touched,
// and the guarded tensors of the tests work on a device as on the host.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest-spi.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "coca/base/parallel.h"
#include "coca/ops/attention.h"
#include "coca/ops/heads.h"
#include "coca/ops/linear.h"
#include "coca/ops/norm.h"
#include "coca/ops/rope.h"
#include "coca/ops/table.h"
#include "ops/op_test.h"
#include "support/fake_device.h"

namespace coca::test::device_ops_test {
namespace {

TEST(DeviceOps, OperandsMustLieWhereTheOpRuns) {
  FakeDevice gpu(1 << 20);
  Context cpu;
  const Tensor x({4, 8}), w({8}), there({4, 8}, DType::kF32, &gpu);
  Tensor y({4, 8}), y_there({4, 8}, DType::kF32, &gpu);
  expect_error([&] { ops::norm_forward(cpu, {.x = there, .w = w, .y = y}); },
               "[norm] x [4, 8] lies on cuda:0; expected cpu");
  expect_error([&] { ops::norm_forward(cpu, {.x = x, .w = w, .y = y_there}); },
               "[norm] y [4, 8] lies on cuda:0; expected cpu");
  const Tensor matrix({8, 8}, DType::kF32, &gpu);
  expect_error([&] { ops::linear_forward(cpu, {.x = x, .w = matrix, .y = y}); },
               "[linear] w [8, 8] lies on cuda:0; expected cpu");
  const Tensor q({1, 4, 2, 8}), k_there({1, 4, 2, 8}, DType::kF32, &gpu);
  Tensor o({1, 4, 2, 8}), k_there_out({1, 4, 2, 8}, DType::kF32, &gpu);
  expect_error([&] { ops::attention_forward(cpu, {.scale = 1.0f}, {.q = q, .k = k_there, .v = q, .o = o}); },
               "lies on cuda:0; expected cpu");
  expect_error(
      [&] {
        ops::zero_heads(cpu, Tensor({1, 4, 2, 8}, DType::kF32, &gpu));
      },
      "[heads] t [1, 4, 2, 8] lies on cuda:0; expected cpu");
  expect_error([&] { ops::add_heads(cpu, q, k_there_out); }, "[heads] to [1, 4, 2, 8] lies on cuda:0; expected cpu");
  expect_error([&] { ops::copy_heads(cpu, k_there, o); }, "[heads] from [1, 4, 2, 8] lies on cuda:0; expected cpu");
  const Tensor slopes({2}, DType::kF32, &gpu), documents({1, 4}, DType::kI32, &gpu);
  expect_error(
      [&] { ops::attention_forward(cpu, {.scale = 1.0f}, {.q = q, .k = q, .v = q, .slopes = slopes, .o = o}); },
      "[attention] slopes [2] lies on cuda:0; expected cpu");
  expect_error(
      [&] {
        ops::attention_forward(cpu, {.scale = 1.0f}, {.q = q, .k = q, .v = q, .document_start = documents, .o = o});
      },
      "[attention] document_start [1, 4] lies on cuda:0; expected cpu");
  const Tensor angles({1, 4, 4}, DType::kF32, &gpu), near({1, 4, 4});
  expect_error(
      [&] {
        ops::rope_forward(cpu, {.rows = {angles, near}, .x = q, .y = o});
      },
      "[rope] cos [1, 4, 4] lies on cuda:0; expected cpu");
  expect_error(
      [&] {
        ops::rope_forward(cpu, {.rows = {near, angles}, .x = q, .y = o});
      },
      "[rope] sin [1, 4, 4] lies on cuda:0; expected cpu");
}

// A Context of a device refuses operands on the host.
TEST(DeviceOps, HostOperandsAreRefusedOnADevice) {
  FakeDevice gpu(1 << 20);
  Context cx(&gpu);
  const Tensor x({4, 8}), w({8});
  Tensor y({4, 8});
  expect_error([&] { ops::norm_forward(cx, {.x = x, .w = w, .y = y}); },
               "[norm] x [4, 8] lies on cpu; expected cuda:0");
}

// If a forced row does not support a call, the first row that does is used.
TEST(OpTables, AForcedRowRunsTheCallsItSupports) {
  Context cx;
  cx.force_impl("linear", "widened");
  EXPECT_EQ(ops::running_impl(cx, "linear", DType::kBF16), "widened");
  EXPECT_EQ(ops::running_impl(cx, "linear", DType::kF32), "onednn");
}

TEST(OpTables, EveryOpHasARowForTheCpuAndAtMostOneOfAName) {
  for (const ops::OpTable& op : ops::op_tables()) {
    std::vector<std::string_view> names = op.names(DeviceKind::kCpu);
    EXPECT_FALSE(names.empty()) << op.op;
    std::ranges::sort(names);
    EXPECT_EQ(std::ranges::adjacent_find(names), names.end()) << op.op;
    for (const ops::OpRow& row : op.rows)
      EXPECT_EQ(row.runs_here, ops::runs_here(op.op, row.name)) << op.op << ":" << row.name;
  }
}

TEST(OpTables, ForcedNamesAreChecked) {
  Context cx;
  cx.force_impl("norm", "magic");
  expect_error([&] { ops::check_forced(cx); },
               "implementation \"magic\" forced for op \"norm\" does not exist; expected cpu or ref");
  Context other;
  other.force_impl("magic", "ref");
  expect_error([&] { ops::check_forced(other); },
               "implementation \"ref\" forced for op \"magic\", which does not exist; expected adamw, ");
}

// The ops of a Context use its number of threads, whatever that of the process.
TEST(DeviceOps, AContextSetsTheNumberOfThreads) {
  const int before = max_threads();
  set_max_threads(3);
  Context one(nullptr, {.threads = 1}), same;
  EXPECT_EQ(one.threads(), 1);
  {
    const ThreadScope scope(one.threads());
    EXPECT_EQ(max_threads(), 1);
    const ThreadScope unchanged(same.threads());
    EXPECT_EQ(max_threads(), 1);
  }
  EXPECT_EQ(max_threads(), 3);
  std::vector<int> used(64, -1);
  const ThreadScope scope(2);
  parallel_for(64, [&](int64_t task) { used[static_cast<size_t>(task)] = thread_index(); });
  for (const int index : used) EXPECT_LT(index, 2);
  set_max_threads(before);
}

TEST(DeviceOps, EveryOpSaysWhereItCannotRun) {
  FakeDevice gpu(1 << 20);
  const Context cx(&gpu);
  for (const ops::OpTable& op : ops::op_tables())
    if (op.names(DeviceKind::kCuda).empty())
      expect_error([&] { ops::running_impl(cx, op.op, DType::kF32); },
                   fmt::format("[{}] has no implementation on cuda:0; expected cpu", op.op));
}

// The message depends on the machine and the build, but there must be one.
TEST(DeviceOps, DevicesByName) {
  EXPECT_EQ(ops::device_memory(parse_device("cpu")), nullptr);
  const ops::Gpus gpus = ops::gpus();
  EXPECT_EQ(gpus.list.empty(), !gpus.none.empty());
  if (gpus.list.empty())
    expect_error([] { ops::device_memory(parse_device("cuda")); }, "cuda:0 cannot be used: " + gpus.none);
  else
    EXPECT_EQ(ops::device_memory(parse_device("cuda"))->device().text(), "cuda:0");
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

// The fake device uses host memory, so an assignment can act as a kernel.
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
}  // namespace coca::test::device_ops_test

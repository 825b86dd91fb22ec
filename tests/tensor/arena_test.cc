// Arenas: planning, binding, reuse by scope; and the Context's scratch, forced implementations and trace.
// SPDX-License-Identifier: Apache-2.0
#include "coca/tensor/arena.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <numeric>

#include "coca/tensor/context.h"

namespace coca::arena_test {
namespace {

using ::testing::HasSubstr;

uintptr_t address(const MutTensorRef& t) { return reinterpret_cast<uintptr_t>(t.data); }

TEST(Arena, BindsDisjointAlignedTensors) {
  ArenaPlan plan;
  MutTensorRef a, b, c;
  plan.add("a", {3, 5}, DType::kF32, &a);  // 60 bytes, rounded to 64
  plan.add("b", {2}, DType::kI64, &b);
  plan.add("c", {7}, DType::kBF16, &c);
  EXPECT_EQ(plan.bytes(), 192u);
  ASSERT_EQ(plan.entries().size(), 3u);
  EXPECT_EQ(plan.entries()[1].name, "b");
  const Arena arena(plan);
  EXPECT_EQ(arena.bytes(), 192u);
  for (const MutTensorRef& t : {a, b, c}) EXPECT_EQ(address(t) % 64, 0u);
  EXPECT_EQ(address(b), address(a) + 64);
  EXPECT_EQ(address(c), address(b) + 64);
  EXPECT_EQ(a.shape, (Dims{3, 5}));
  EXPECT_EQ(b.dtype, DType::kI64);
  a.as<float>()[14] = 1.0f;  // the last element is inside the block
}

TEST(Arena, ScopesShareBytes) {
  ArenaPlan plan;
  MutTensorRef kept, first, second, after;
  plan.add("kept", {16}, DType::kF32, &kept);
  const size_t mark = plan.mark();
  plan.add("first", {64}, DType::kF32, &first);
  plan.rewind(mark);
  plan.add("second", {32}, DType::kF32, &second);
  plan.add("after", {16}, DType::kF32, &after);
  EXPECT_EQ(plan.bytes(), 64u + 256u);  // the peak, not the sum
  const Arena arena(plan);
  EXPECT_EQ(first.data, second.data);
  EXPECT_EQ(address(after), address(second) + 128);
}

TEST(Arena, RebindKeepsTheBlockWhenItIsLargeEnough) {
  MutTensorRef big, small, huge;
  ArenaPlan a, b, c;
  a.add("big", {1000}, DType::kF32, &big);
  b.add("small", {10}, DType::kF32, &small);
  c.add("huge", {5000}, DType::kF32, &huge);
  Arena arena(a);
  const size_t bytes = arena.bytes();
  arena.bind(b);
  EXPECT_EQ(small.data, big.data);
  EXPECT_EQ(arena.bytes(), bytes);
  arena.bind(c);
  EXPECT_GE(arena.bytes(), 20000u);
  huge.as<float>()[4999] = 1.0f;
}

TEST(Arena, EmptyPlansWork) {
  ArenaPlan plan;
  Arena arena(plan);
  EXPECT_EQ(arena.bytes(), 0u);
  MutTensorRef none;
  plan.add("none", {0, 4}, DType::kF32, &none);
  arena.bind(plan);
  EXPECT_FALSE(none.empty());
  EXPECT_EQ(none.numel(), 0);
}

// Sets the default options during one test.
class Forced {
 public:
  explicit Forced(std::string_view text) {
    set_default_context_options({.forced = parse_forced("--force-impl", text)});
  }
  ~Forced() { set_default_context_options({}); }
};

TEST(Context, ScratchGrowsAndStays) {
  Context context;
  void* first = context.scratch(1000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 64, 0u);
  EXPECT_EQ(context.scratch(10), first);
  EXPECT_NE(context.scratch(0), nullptr);
  void* outer = context.scratch(1000, ScratchUser::kLora);  // must stay valid while other ops use their scratch
  EXPECT_NE(outer, first);
  context.scratch(100000);
  EXPECT_EQ(context.scratch(1000, ScratchUser::kLora), outer);
  const MutTensorRef t = context.scratch_tensor({100, 100}, DType::kF64);
  EXPECT_EQ(t.bytes(), 80000u);
  t.as<double>()[9999] = 1.0;
}

TEST(Context, ForcedImplementationsByDefault) {
  const Forced forced("attention:ref,linear:cpu");
  const Context context;
  EXPECT_EQ(context.forced_impl("attention"), "ref");
  EXPECT_EQ(context.forced_impl("linear"), "cpu");
  EXPECT_EQ(context.forced_impl("norm"), "");
}

TEST(Context, ForcedImplementationsByCallWin) {
  const Forced forced("attention:ref");
  Context context;
  context.force_impl("attention", "cpu");
  EXPECT_EQ(context.forced_impl("attention"), "cpu");
}

TEST(Context, BadForcedTextIsAnError) {
  for (const char* text :
       {"attention", ":ref", "attention:", "a:b,,c:d"}) {  // the trailing comma in the last one is ignored
    try {
      parse_forced("--force-impl", text);
      ADD_FAILURE() << "accepted " << text;
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), HasSubstr("is not op:implementation")) << text;
    }
  }
}

TEST(Context, TraceReceivesNamedValues) {
  Context context;
  const Tensor t({2, 3});
  context.trace("unheard", t);
  std::vector<std::string> names;
  context.set_trace(
      [&](std::string_view name, TensorRef value) { names.push_back(std::string(name) + value.shape.text()); });
  EXPECT_TRUE(context.tracing());
  context.trace("layer.0.q", t);
  EXPECT_THAT(names, testing::ElementsAre("layer.0.q[2, 3]"));
  context.set_trace({});
  EXPECT_FALSE(context.tracing());
}

}  // namespace
}  // namespace coca::arena_test

// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/residual.h"

#include "coca/kernels/ref/residual.h"
#include "ops/op_test.h"

namespace coca::test::residual_test {
namespace {

// Sums of two or three floats in the reference's order: the bits agree.
template <typename T>
void run_case(Context& context, int64_t M, int64_t C) {
  Guarded a(context, M, C, random_values(M * C, 1));
  GuardedOf<T> b(context, M, C, random_values(M * C, 2)), c(context, M, C, random_values(M * C, 3));
  std::vector<float> two(static_cast<size_t>(M * C)), three = two;
  ref::residual_forward<float>(M * C, a.values().data(), b.values().data(), nullptr, two.data());
  ref::residual_forward<float>(M * C, a.values().data(), b.values().data(), c.values().data(), three.data());
  Guarded y(context, M, C);
  ops::residual_forward(context, {.a = a.ref(), .b = b.ref(), .y = y.ref()});
  EXPECT_EQ(y.values(), two);
  ops::residual_forward(context, {.a = a.ref(), .b = b.ref(), .c = c.ref(), .y = y.ref()});
  EXPECT_EQ(y.values(), three);
  y.expect_intact("y");
  if constexpr (std::is_same_v<T, float>) {
    ops::residual_forward(context, {.a = a.ref(), .b = b.ref(), .c = c.ref(), .y = c.ref()});
    EXPECT_EQ(c.values(), three) << "in place of c";
  }
  ops::residual_forward(context, {.a = a.ref(), .b = b.ref(), .y = a.ref()});
  EXPECT_EQ(a.values(), two) << "in place of a";
}

TEST(Residual, ValuesOnEveryTarget) {
  for (const auto& [M, C] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {1, 3}, {5, 31}, {3, 127}, {70, 1031}}) {
    SCOPED_TRACE(fmt::format("M={} C={}", M, C));
    for_each_way({"residual"}, [m = M, k = C](Context& context) {
      run_case<float>(context, m, k);
      run_case<BF16>(context, m, k);
    });
  }
}

TEST(Residual, Errors) {
  Context context;
  Tensor a({4, 8}), b({4, 7}), y({4, 8}), half({4, 8}, DType::kBF16);
  const auto forward = [&](const ops::ResidualForward& r) {
    return [&context, r] { ops::residual_forward(context, r); };
  };
  expect_error(forward({.a = a, .b = b, .y = y}), "[residual] b has shape [4, 7]; expected [4, 8]");
  expect_error(forward({.a = a, .b = a, .c = b, .y = y}), "[residual] c has shape [4, 7]; expected [4, 8]");
  expect_error(forward({.a = half, .b = a, .y = y}), "[residual] a has type BF16; expected F32");
  expect_error(forward({.a = a, .b = half, .c = a, .y = y}), "[residual] c has type F32; expected BF16");
  expect_error(forward({.a = a, .b = half, .y = half}), "[residual] y has type BF16; expected F32");
  expect_error(forward({.a = a, .b = a}), "[residual] y is missing");
  expect_error(forward({.a = a.ref().narrow(1, 0, 4), .b = a, .y = y}), "[residual] a [4, 4] must be contiguous");
}

}  // namespace
}  // namespace coca::test::residual_test

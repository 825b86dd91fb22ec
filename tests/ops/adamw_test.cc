// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/adamw.h"

#include "coca/kernels/ref/adamw.h"
#include "ops/op_test.h"

namespace coca::test::adamw_test {
namespace {

template <typename T>
struct State {
  std::vector<T> param, m, v;
};

// Three steps, so that the moments and their corrections matter.
constexpr int kSteps = 3;
ops::AdamWStep step_options(int step) {
  ops::AdamWStep a;
  a.learning_rate = 3e-2f;
  a.weight_decay = 0.1f;
  a.grad_scale = 0.5f;
  a.step = step;
  return a;
}

template <typename T>
State<T> expected(int64_t n) {
  State<T> s{as<T>(random_values(n, 1)), std::vector<T>(static_cast<size_t>(n)),
             std::vector<T>(static_cast<size_t>(n))};
  for (int step = 1; step <= kSteps; ++step) {
    const auto a = step_options(step);
    const auto grad = as<T>(random_values(n, 10 + static_cast<uint64_t>(step)));
    ref::adamw_step<T>({.learning_rate = a.learning_rate,
                        .beta1 = a.beta1,
                        .beta2 = a.beta2,
                        .eps = a.eps,
                        .weight_decay = a.weight_decay,
                        .grad_scale = a.grad_scale,
                        .step = a.step},
                       n, grad.data(), s.param.data(), s.m.data(), s.v.data());
  }
  return s;
}

void run_case(Context& context, int64_t n) {
  const State<double> want = expected<double>(n);
  const State<float> naive = expected<float>(n);
  Guarded param(context, 1, n, random_values(n, 1)), m(context, 1, n, std::vector<float>(static_cast<size_t>(n))),
      v(context, 1, n, std::vector<float>(static_cast<size_t>(n)));
  GuardedOf<BF16> copy(context, 1, n);
  for (int step = 1; step <= kSteps; ++step) {
    Guarded grad(context, 1, n, random_values(n, 10 + static_cast<uint64_t>(step)));
    auto a = step_options(step);
    a.grad = grad.vector();
    a.param = param.vector();
    a.m = m.vector();
    a.v = v.vector();
    if (step == kSteps) a.copy = copy.vector();
    ops::adamw_step(context, a);
  }
  expect_close(param.values(), want.param, naive.param, {.terms = kSteps}, "param");
  expect_close(m.values(), want.m, naive.m, {.terms = kSteps}, "m");
  expect_close(v.values(), want.v, naive.v, {.terms = kSteps}, "v");
  EXPECT_EQ(copy.values(), as_stored<BF16>(param.values()));
  for (Guarded* out : {&param, &m, &v}) out->expect_intact("adamw");
  copy.expect_intact("copy");
}

TEST(AdamW, ValuesOnEveryTarget) {
  for (int64_t n : {1, 3, 17, 1031, 70001}) {
    SCOPED_TRACE(fmt::format("n={}", n));
    for_each_way({"adamw"}, [&](Context& context) { run_case(context, n); });
  }
}

// The first step by hand: mhat = g and vhat = g^2, so the step is lr g / (|g| + eps), after the decay.
TEST(AdamW, FirstStepByHand) {
  Context context;
  Tensor grad({2}), param({2}), m({2}), v({2});
  grad.values<float>()[0] = 2.0f;
  grad.values<float>()[1] = -1e-3f;
  param.values<float>()[0] = 1.0f;
  param.values<float>()[1] = 1.0f;
  ops::adamw_step(
      context,
      {.learning_rate = 0.125f, .eps = 1e-3f, .weight_decay = 0.5f, .grad = grad, .param = param, .m = m, .v = v});
  // 1 - 0.125 * 0.5 = 0.9375; a few roundings at magnitude one.
  EXPECT_NEAR(param.values<float>()[0], 0.9375 - 0.125 * 2.0 / 2.001, 1e-6);
  EXPECT_NEAR(param.values<float>()[1], 0.9375 + 0.125 * 1e-3 / 2e-3, 1e-6);
}

TEST(SumOfSquares, ValuesOnEveryTarget) {
  for (int64_t n : {0, 1, 3, 31, 1031, 200003}) {
    const Tensor x = random_tensor({n}, 1);
    const double want = ref::sum_of_squares(n, x.ref().as<float>());
    for_each_way({"adamw"}, [&](Context& context) {
      // Squares of floats are exact in double; 2e5 roundings of a positive sum stay below 1e-10 of it.
      EXPECT_NEAR(ops::sum_of_squares(context, to_device(context, x)), want, 1e-10 * want) << "n=" << n;
    });
    Context forced;
    forced.force_impl("adamw", "ref");
    EXPECT_EQ(ops::sum_of_squares(forced, x), want);
  }
}

TEST(SumOfSquares, NaNAndInfinityShow) {
  Context context;
  Tensor x = random_tensor({100003}, 1);
  x.values<float>()[70000] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(ops::sum_of_squares(context, x), std::numeric_limits<double>::infinity());
  x.values<float>()[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(ops::sum_of_squares(context, x)));
}

TEST(SumOfSquares, BitsDoNotDependOnThreads) {
  const Tensor x = random_tensor({300007}, 1);
  expect_same_bits(
      [&] {
        Context context;
        const double sum = ops::sum_of_squares(context, x);
        std::vector<float> bits(2);
        std::memcpy(bits.data(), &sum, sizeof sum);
        return bits;
      },
      "sum_of_squares");
}

TEST(AdamW, Errors) {
  Context context;
  Tensor grad({8}), param({7}), p8({8}), m({8}), v({8});
  const auto step = [&](const ops::AdamWStep& a) { return [&context, a] { ops::adamw_step(context, a); }; };
  expect_error(step({.grad = grad, .param = param, .m = m, .v = v}), "[adamw] param has shape [7]; expected [8]");
  expect_error(step({.step = 0, .grad = grad, .param = p8, .m = m, .v = v}), "[adamw] step = 0 must be at least 1");
  expect_error(step({.beta2 = 1.0f, .grad = grad, .param = p8, .m = m, .v = v}), "must be in [0, 1)");
  expect_error(step({.grad = grad, .param = p8, .m = m, .v = v, .copy = p8}),
               "[adamw] copy has type F32; expected BF16");
  expect_error(step({.grad = grad, .param = p8, .m = m}), "[adamw] v is missing");
}

}  // namespace
}  // namespace coca::test::adamw_test

// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/activation.h"

#include "coca/kernels/ref/activation.h"
#include "ops/op_test.h"

namespace coca::test::activation_test {
namespace {

const std::vector<std::pair<int64_t, int64_t>> kShapes = {{1, 1}, {1, 3}, {3, 31}, {7, 67}, {70, 513}};

template <typename T>
void ref_gelu(ops::Gelu kind, const std::vector<T>& x, const std::vector<T>& dy, std::vector<T>& y,
              std::vector<T>& dx) {
  const auto n = static_cast<int64_t>(x.size());
  y.resize(x.size());
  dx.resize(x.size());
  if (kind == ops::Gelu::kExact) {
    ref::gelu_exact_forward(n, x.data(), y.data());
    ref::gelu_exact_backward(n, x.data(), dy.data(), dx.data());
  } else {
    ref::gelu_tanh_forward(n, x.data(), y.data());
    ref::gelu_tanh_backward(n, x.data(), dy.data(), dx.data());
  }
}

template <typename T>
void run_gelu(Context& context, ops::Gelu kind, int64_t M, int64_t F) {
  const auto x = as_stored<T>(random_values(M * F, 1, -6, 6)), dy = as_stored<T>(random_values(M * F, 2));
  const ErrorRule rule{.stored = DTypeOf<T>::value};
  std::vector<double> y_want, dx_want;
  std::vector<float> y_naive, dx_naive;
  ref_gelu(kind, as<double>(x), as<double>(dy), y_want, dx_want);
  ref_gelu(kind, x, dy, y_naive, dx_naive);
  GuardedOf<T> gx(context, M, F, x), gy(context, M, F), gdy(context, M, F, dy), gdx(context, M, F);
  ops::gelu_forward(context, {.kind = kind, .x = gx.ref(), .y = gy.ref()});
  ops::gelu_backward(context, {.kind = kind, .x = gx.ref(), .dy = gdy.ref(), .dx = gdx.ref()});
  expect_close(gy.values(), y_want, y_naive, rule, "y");
  expect_close(gdx.values(), dx_want, dx_naive, rule, "dx");
  gy.expect_intact("y");
  gdx.expect_intact("dx");
  ops::gelu_backward(context, {.kind = kind, .x = gx.ref(), .dy = gdy.ref(), .dx = gdy.ref()});
  EXPECT_EQ(gdy.values(), gdx.values()) << "in place of dy";
}

template <typename T>
void run_swiglu(Context& context, int64_t M, int64_t F) {
  const ErrorRule rule{.stored = DTypeOf<T>::value};
  const auto n = static_cast<int64_t>(M * F);
  const auto gate = as_stored<T>(random_values(n, 1, -6, 6)), up = as_stored<T>(random_values(n, 2)),
             dy = as_stored<T>(random_values(n, 3));
  const auto gated = as<double>(gate), upd = as<double>(up), dyd = as<double>(dy);
  std::vector<double> y(gated.size()), dgate(y), dup(y);
  std::vector<float> y_naive(gate.size()), dgate_naive(y_naive), dup_naive(y_naive);
  ref::swiglu_forward(n, gated.data(), upd.data(), y.data());
  ref::swiglu_backward(n, gated.data(), upd.data(), dyd.data(), dgate.data(), dup.data());
  ref::swiglu_forward(n, gate.data(), up.data(), y_naive.data());
  ref::swiglu_backward(n, gate.data(), up.data(), dy.data(), dgate_naive.data(), dup_naive.data());
  GuardedOf<T> ggate(context, M, F, gate), gup(context, M, F, up), gdy(context, M, F, dy), gy(context, M, F),
      gdgate(context, M, F), gdup(context, M, F);
  ops::swiglu_forward(context, {.gate = ggate.ref(), .up = gup.ref(), .y = gy.ref()});
  ops::swiglu_backward(
      context, {.gate = ggate.ref(), .up = gup.ref(), .dy = gdy.ref(), .dgate = gdgate.ref(), .dup = gdup.ref()});
  expect_close(gy.values(), y, y_naive, rule, "y");
  expect_close(gdgate.values(), dgate, dgate_naive, rule, "dgate");
  expect_close(gdup.values(), dup, dup_naive, rule, "dup");
  for (GuardedOf<T>* out : {&gy, &gdgate, &gdup}) out->expect_intact("swiglu");
  ops::swiglu_backward(
      context, {.gate = ggate.ref(), .up = gup.ref(), .dy = gdy.ref(), .dgate = gdgate.ref(), .dup = gdy.ref()});
  EXPECT_EQ(gdy.values(), gdup.values()) << "in place of dy";
}

TEST(Activation, ValuesAndGradientsOnEveryTarget) {
  for (const auto& [M, F] : kShapes) {
    SCOPED_TRACE(fmt::format("M={} F={}", M, F));
    for_each_way({"gelu", "swiglu"}, [m = M, f = F](Context& context) {
      for (const auto kind : {ops::Gelu::kExact, ops::Gelu::kTanh}) {
        run_gelu<float>(context, kind, m, f);
        run_gelu<BF16>(context, kind, m, f);
      }
      run_swiglu<float>(context, m, f);
      run_swiglu<BF16>(context, m, f);
    });
  }
}

TEST(Activation, ReferenceGradientIsTheComplexStep) {
  constexpr int64_t n = 41;
  const auto x = as<double>(random_values(n, 1, -4, 4)), dy = as<double>(random_values(n, 2));
  std::vector<double> y, dx;
  std::vector<Complex> yc(n);
  ref_gelu(ops::Gelu::kExact, x, dy, y, dx);
  expect_gradient(dx,
                  complex_step_gradient(x,
                                        [&](std::span<const Complex> at) {
                                          ref::gelu_exact_forward(n, at.data(), yc.data());
                                          return weighted_sum(yc, dy);
                                        }),
                  "gelu exact");
  ref_gelu(ops::Gelu::kTanh, x, dy, y, dx);
  expect_gradient(dx,
                  complex_step_gradient(x,
                                        [&](std::span<const Complex> at) {
                                          ref::gelu_tanh_forward(n, at.data(), yc.data());
                                          return weighted_sum(yc, dy);
                                        }),
                  "gelu tanh");
  const auto up = as<double>(random_values(n, 3));
  std::vector<double> dgate(n), dup(n);
  ref::swiglu_backward(n, x.data(), up.data(), dy.data(), dgate.data(), dup.data());
  expect_gradient(joined({dgate, dup}),
                  complex_step_gradient(joined({x, up}),
                                        [&](std::span<const Complex> at) {
                                          ref::swiglu_forward(n, at.data(), at.data() + n, yc.data());
                                          return weighted_sum(yc, dy);
                                        }),
                  "swiglu");
}

// Accuracy of Phi as documented, checked through y = x Phi(x). The absolute error in Phi is at most 2^-23. In the lower
// tail, where 1 + erf has no significant digits, the relative error counts: rounding x^2 / 2 costs half an ulp of it,
// at most 2^-20 below 16, and exp and the polynomial a few 2^-24 more; together less than 2^-19.
TEST(Activation, ExactGeluIsAccurateOnEveryTarget) {
  constexpr int64_t n = 20001;
  Tensor x({n}), y({n});
  for (int64_t i = 0; i < n; ++i) x.values<float>()[static_cast<size_t>(i)] = static_cast<float>(i - 10000) * 0.00055f;
  for_each_target([&] {
    Context context;
    ops::gelu_forward(context, {.x = x, .y = y});
    for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
      const double at = x.values<float>()[i], want = 0.5 * at * std::erfc(-at / std::sqrt(2.0));
      const double error = std::abs(y.values<float>()[i] - want);
      ASSERT_LE(error, 0x1p-23 * std::abs(at)) << at;
      ASSERT_LE(error, 0x1p-19 * std::abs(want)) << at;
    }
  });
}

TEST(Activation, ExtremesOnEveryTarget) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  Tensor x({6}), dy({6}), y({6}), dx({6});
  for (size_t i = 0; i < 6; ++i) {
    x.values<float>()[i] = std::vector<float>{-200.0f, 200.0f, inf, nan, 0.0f, 1e10f}[i];
    dy.values<float>()[i] = 1.0f;
  }
  for_each_target([&] {
    Context context;
    for (auto kind : {ops::Gelu::kExact, ops::Gelu::kTanh}) {
      ops::gelu_forward(context, {.kind = kind, .x = x, .y = y});
      ops::gelu_backward(context, {.kind = kind, .x = x, .dy = dy, .dx = dx});
      const auto v = y.values<float>(), g = dx.values<float>();
      EXPECT_EQ(v[0], 0.0f);
      EXPECT_EQ(v[1], 200.0f);
      EXPECT_EQ(v[2], inf);
      EXPECT_TRUE(std::isnan(v[3]) && std::isnan(g[3]));
      EXPECT_EQ(v[4], 0.0f);
      EXPECT_EQ(v[5], 1e10f);
      EXPECT_EQ(g[0], 0.0f);
      EXPECT_EQ(g[1], 1.0f);
      EXPECT_NEAR(g[4], 0.5f, 0x1p-23);
    }
    ops::swiglu_forward(context, {.gate = x, .up = dy, .y = y});
    EXPECT_EQ(y.values<float>()[0], 0.0f);
    EXPECT_EQ(y.values<float>()[1], 200.0f);
    EXPECT_TRUE(std::isnan(y.values<float>()[3]));
  });
}

TEST(Activation, Errors) {
  Context context;
  Tensor x({4, 8}), y({4, 7}), half({4, 8}, DType::kBF16), ids({4, 8}, DType::kI32);
  expect_error([&] { ops::gelu_forward(context, {.x = ids, .y = x}); }, "[gelu] x has type I32; expected F32 or BF16");
  expect_error([&] { ops::gelu_backward(context, {.x = half, .dy = x, .dx = half}); },
               "[gelu] dy has type F32; expected BF16");
  expect_error([&] { ops::swiglu_forward(context, {.gate = x, .up = half, .y = x}); },
               "[swiglu] up has type BF16; expected F32");
  expect_error([&] { ops::gelu_forward(context, {.x = x, .y = y}); }, "[gelu] y has shape [4, 7]; expected [4, 8]");
  expect_error([&] { ops::gelu_backward(context, {.x = x, .dy = y, .dx = x}); },
               "[gelu] dy has shape [4, 7]; expected [4, 8]");
  expect_error([&] { ops::swiglu_forward(context, {.gate = x, .up = y, .y = x}); },
               "[swiglu] up has shape [4, 7]; expected [4, 8]");
  expect_error([&] { ops::swiglu_backward(context, {.gate = x, .up = x, .dy = x, .dgate = x}); },
               "[swiglu] dup is missing");
}

}  // namespace
}  // namespace coca::test::activation_test

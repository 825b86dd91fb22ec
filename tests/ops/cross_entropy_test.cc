// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/cross_entropy.h"

#include <algorithm>

#include "coca/kernels/ref/cross_entropy.h"
#include "coca/kernels/ref/linear.h"
#include "ops/op_test.h"

namespace coca::test::cross_entropy_test {
namespace {

constexpr float kScale = 0.37f;

// Random targets; every fifth row is ignored if there are several rows.
std::vector<int32_t> some_targets(int64_t M, int64_t V) {
  Rng rng(9);
  std::vector<int32_t> targets(static_cast<size_t>(M));
  for (size_t m = 0; m < targets.size(); ++m)
    targets[m] = m % 5 == 3 ? ops::kIgnoreTarget : static_cast<int32_t>(rng.below(static_cast<uint64_t>(V)));
  return targets;
}

template <typename T>
struct Expected {
  std::vector<T> nll, lse, dlogits;

  Expected(int64_t M, int64_t V, const std::vector<float>& logits, const std::vector<int32_t>& targets)
      : nll(static_cast<size_t>(M)), lse(nll), dlogits(logits.size()) {
    const auto x = as<T>(logits);
    ref::cross_entropy_forward<T>(M, V, x.data(), targets.data(), nll.data(), lse.data());
    ref::cross_entropy_backward<T>(M, V, x.data(), targets.data(), lse.data(), static_cast<T>(kScale), dlogits.data());
  }
};

void run_case(Context& context, int64_t M, int64_t V, double span) {
  const auto logits = random_values(M * V, 1, -span, span);
  const auto target_values = some_targets(M, V);
  const Expected<double> want(M, V, logits, target_values);
  const Expected<float> naive(M, V, logits, target_values);
  const Tensor targets = to_device(context, int_tensor(target_values));
  Guarded x(context, M, V, logits), nll(context, 1, M), lse(context, 1, M), dlogits(context, M, V);
  ops::cross_entropy_forward(context,
                             {.logits = x.ref(), .targets = targets, .nll = nll.vector(), .lse = lse.vector()});
  ops::cross_entropy_backward(
      context, {.logits = x.ref(), .targets = targets, .lse = lse.vector(), .scale = kScale, .dlogits = dlogits.ref()});
  const ErrorRule rule{.terms = static_cast<double>(V), .zero_share = V == 1 ? 1.0 : 0.5};
  expect_close(nll.values(), want.nll, naive.nll, rule, "nll");
  expect_close(lse.values(), want.lse, naive.lse, rule, "lse");
  expect_close(dlogits.values(), want.dlogits, naive.dlogits, rule, "dlogits");
  for (Guarded* out : {&nll, &lse, &dlogits}) out->expect_intact("cross_entropy");
  const auto apart = dlogits.values();
  ops::cross_entropy_backward(
      context, {.logits = x.ref(), .targets = targets, .lse = lse.vector(), .scale = kScale, .dlogits = x.ref()});
  EXPECT_EQ(x.values(), apart) << "in place";
}

TEST(CrossEntropy, ValuesAndGradientsOnEveryTarget) {
  for (const auto& [M, V] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 2}, {6, 17}, {7, 256}, {33, 1031}})
    for (double span : {3.0, 60.0}) {
      SCOPED_TRACE(fmt::format("M={} V={} span={}", M, V, span));
      for_each_way({"cross_entropy"}, [&, m = M, v = V](Context& context) { run_case(context, m, v, span); });
    }
}

TEST(CrossEntropy, ReferenceGradientIsTheComplexStep) {
  constexpr int64_t M = 4, V = 7;
  const std::vector<int32_t> targets = {3, 0, ops::kIgnoreTarget, 6};
  const auto logits = as<double>(random_values(M * V, 1, -3, 3));
  std::vector<double> nll(M), lse(M), dlogits(M * V);
  ref::cross_entropy_forward<double>(M, V, logits.data(), targets.data(), nll.data(), lse.data());
  ref::cross_entropy_backward<double>(M, V, logits.data(), targets.data(), lse.data(), 0.25, dlogits.data());
  const auto expected = complex_step_gradient(logits, [&](std::span<const Complex> at) {
    std::vector<Complex> nllc(M);
    ref::cross_entropy_forward<Complex>(M, V, at.data(), targets.data(), nllc.data(), nullptr);
    return weighted_sum(nllc, std::vector<double>(M, 0.25));
  });
  expect_gradient(dlogits, expected, "cross_entropy");
}

// The fused loss from separate parts: logits, cross entropy, and the two products of its gradient. The naive form in
// bf16 rounds dlogits, because its products take only one type. The form in double rounds nothing.
template <typename T>
struct ExpectedLm {
  std::vector<T> nll, dx, dw;

  ExpectedLm(int64_t M, int64_t V, int64_t C, const std::vector<float>& xf, const std::vector<float>& wf,
             const std::vector<float>& dw0, const std::vector<int32_t>& targets, DType type)
      : nll(static_cast<size_t>(M)), dx(xf.size()), dw(as<T>(dw0)) {
    const auto x = as<T>(xf), w = as<T>(wf);
    std::vector<T> logits(static_cast<size_t>(M * V)), lse(static_cast<size_t>(M));
    const TensorView<const T, 2> xv{x.data(), {M, C}, {C, 1}}, wv{w.data(), {V, C}, {C, 1}};
    const TensorView<T, 2> lv{logits.data(), {M, V}, {V, 1}};
    ref::linear_forward<T>(xv, wv, {}, lv);
    ref::cross_entropy_forward<T>(M, V, logits.data(), targets.data(), nll.data(), lse.data());
    ref::cross_entropy_backward<T>(M, V, logits.data(), targets.data(), lse.data(), static_cast<T>(kScale),
                                   logits.data());
    if constexpr (std::is_same_v<T, float>)
      if (type == DType::kBF16)
        std::ranges::copy(as_stored<BF16>(logits),
                          logits.begin());  // copied within the same memory, to which lv refers
    ref::linear_backward_x<T>(wv, lv, TensorView<T, 2>{dx.data(), {M, C}, {C, 1}});
    ref::linear_backward_w<T>(xv, lv, TensorView<T, 2>{dw.data(), {V, C}, {C, 1}});
  }
};

// X is the type of x and w, DX that of dx.
template <typename X, typename DX>
void run_lm(Context& context, int64_t M, int64_t V, int64_t C, int64_t chunk_rows) {
  const auto x_values = as_stored<X>(random_values(M * C, 1)), w_values = as_stored<X>(random_values(V * C, 2)),
             dw0 = random_values(V * C, 3);
  const auto target_values = some_targets(M, V);
  const DType type = DTypeOf<X>::value;
  const ExpectedLm<double> want(M, V, C, x_values, w_values, dw0, target_values, type);
  const ExpectedLm<float> naive(M, V, C, x_values, w_values, dw0, target_values, type);
  const Tensor targets = to_device(context, int_tensor(target_values));
  GuardedOf<X> x(context, M, C, x_values), w(context, V, C, w_values);
  Guarded nll(context, 1, M), nll_only(context, 1, M), dw(context, V, C, dw0);
  GuardedOf<DX> dx(context, M, C), dx_only(context, M, C);
  const ops::LmLoss loss{.x = x.ref(), .w = w.ref(), .targets = targets, .nll = nll.vector(), .chunk_rows = chunk_rows};
  ops::lm_loss_forward_backward(context, loss, {.scale = kScale, .dx = dx.ref(), .dw = dw.ref()});
  ops::LmLoss loss_only = loss;
  loss_only.nll = nll_only.vector();
  ops::lm_loss_forward(context, loss_only);
  ops::lm_loss_forward_backward(context, loss, {.scale = kScale, .dx = dx_only.ref()});
  // Targets and nll on the host: sent, and fetched.
  Tensor on_host = int_tensor(target_values), nll_here({M}), nll_only_here({M});
  ops::LmLoss here = loss;
  here.targets = on_host;
  here.nll = nll_only_here;
  ops::lm_loss_forward(context, here);
  here.nll = nll_here;
  ops::lm_loss_forward_backward(context, here, {.scale = kScale, .dx = dx_only.ref()});
  on_host.set_zero();
  EXPECT_EQ(convert<float>(nll_here), nll.values());
  EXPECT_EQ(convert<float>(nll_only_here), nll_only.values());
  const ErrorRule rule{.terms = static_cast<double>(V + C)};
  expect_close(nll.values(), want.nll, naive.nll, rule, "nll");
  expect_close(nll_only.values(), want.nll, naive.nll, rule, "nll of the forward pass alone");
  expect_close(dx.values(), want.dx, naive.dx, {.terms = rule.terms, .stored = DTypeOf<DX>::value}, "dx");
  expect_close(dw.values(), want.dw, naive.dw, {.terms = static_cast<double>(M + C)}, "dw");
  EXPECT_EQ(dx_only.values(), dx.values()) << "without dw";
  for (Guarded* out : {&nll, &nll_only, &dw}) out->expect_intact("lm_loss");
  dx.expect_intact("lm_loss dx");
}

void run_lm_types(Context& context, int64_t M, int64_t V, int64_t C, int64_t chunk_rows) {
  run_lm<float, float>(context, M, V, C, chunk_rows);
  run_lm<BF16, float>(context, M, V, C, chunk_rows);
  run_lm<BF16, BF16>(context, M, V, C, chunk_rows);
}

// On a GPU targets are not checked before the kernel runs, so an invalid one makes the loss NaN.
TEST(CrossEntropy, ATargetOutsideTheVocabularyIsNanOnAGpu) {
  if (const ops::Gpus found = ops::gpus(); found.list.empty()) GTEST_SKIP() << "not run on a GPU: " << found.none;
  Context gpu(ops::device_memory({DeviceKind::kCuda, 0}));
  const Tensor logits = to_device(gpu, random_tensor({3, 5}, 1)), targets = to_device(gpu, int_tensor({4, 5, -2}));
  Tensor nll({3}, DType::kF32, gpu.memory());
  ops::cross_entropy_forward(gpu, {.logits = logits, .targets = targets, .nll = nll});
  const Tensor host = to_host(gpu, nll);
  EXPECT_TRUE(std::isfinite(host.values<float>()[0]));
  EXPECT_TRUE(std::isnan(host.values<float>()[1]));
  EXPECT_TRUE(std::isnan(host.values<float>()[2]));
}

TEST(LmLoss, ValuesAndGradientsOnEveryTarget) {
  struct Shape {
    int64_t M, V, C, chunk_rows;
  };
  for (const auto& s :
       std::vector<Shape>{{1, 2, 1, 0}, {7, 33, 5, 3}, {23, 131, 17, 23}, {40, 67, 33, 0}, {40, 67, 33, 1}}) {
    SCOPED_TRACE(fmt::format("M={} V={} C={} chunk={}", s.M, s.V, s.C, s.chunk_rows));
    for_each_way({"cross_entropy", "linear"},
                 [&](Context& context) { run_lm_types(context, s.M, s.V, s.C, s.chunk_rows); });
  }
}

TEST(LmLoss, IgnoredRowsHaveNoLossAndNoGradient) {
  constexpr int64_t M = 3, V = 20, C = 8;
  Context context;
  Tensor x = random_tensor({M, C}, 1), w = random_tensor({V, C}, 2), nll({M}), dx({M, C}), dw({V, C});
  const Tensor targets = int_tensor({4, ops::kIgnoreTarget, 5});
  ops::lm_loss_forward_backward(context, {.x = x, .w = w, .targets = targets, .nll = nll}, {.dx = dx, .dw = dw});
  EXPECT_EQ(nll.values<float>()[1], 0.0f);
  EXPECT_GT(nll.values<float>()[0], 0.0f);
  for (int64_t c = 0; c < C; ++c) EXPECT_EQ(dx.values<float>()[static_cast<size_t>(C + c)], 0.0f);
  // Changing the ignored row does not change dw.
  Tensor dw_other({V, C});
  for (int64_t c = 0; c < C; ++c) x.values<float>()[static_cast<size_t>(C + c)] += 1.0f;
  ops::lm_loss_forward_backward(context, {.x = x, .w = w, .targets = targets, .nll = nll}, {.dx = dx, .dw = dw_other});
  EXPECT_EQ(convert<float>(dw), convert<float>(dw_other));
}

template <typename T>
void expect_lm_same_bits() {
  constexpr int64_t M = 200, V = 300, C = 64;
  const Tensor x = tensor_of<T>({M, C}, random_values(M * C, 1)), w = tensor_of<T>({V, C}, random_values(V * C, 2)),
               targets = int_tensor(some_targets(M, V));
  expect_same_bits(
      [&] {
        Context context;
        Tensor nll({M}), dx({M, C}, DTypeOf<T>::value), dw({V, C});
        ops::lm_loss_forward_backward(context, {.x = x, .w = w, .targets = targets, .nll = nll, .chunk_rows = 70},
                                      {.dx = dx, .dw = dw});
        std::vector<float> all;
        for (const Tensor* t : {&nll, &dx, &dw}) {
          const auto values = float_values(*t);
          all.insert(all.end(), values.begin(), values.end());
        }
        return all;
      },
      "lm_loss");
}

TEST(LmLoss, BitsDoNotDependOnThreads) {
  expect_lm_same_bits<float>();
  expect_lm_same_bits<BF16>();
}

TEST(CrossEntropy, NaNShowsOnEveryTarget) {
  const Tensor targets = int_tensor({3, 3});
  for (int64_t bad : {0, 5, 36})
    for_each_target([&] {
      Context context;
      Tensor logits = random_tensor({2, 37}, 1), nll({2}), lse({2});
      logits.values<float>()[static_cast<size_t>(bad)] = std::numeric_limits<float>::quiet_NaN();
      ops::cross_entropy_forward(context, {.logits = logits, .targets = targets, .nll = nll, .lse = lse});
      EXPECT_TRUE(std::isnan(nll.values<float>()[0])) << "NaN at " << bad;
      EXPECT_TRUE(std::isfinite(nll.values<float>()[1]));
    });
}

TEST(CrossEntropy, Errors) {
  Context context;
  Tensor logits({3, 50}), nll({3}), lse({2}), x({3, 4}), w({50, 5}), w4({50, 4});
  const Tensor good = int_tensor({0, -1, 49}), high = int_tensor({0, 50, 0}), low = int_tensor({0, 1, -2});
  const auto forward = [&](TensorRef targets) {
    return [&, targets] { ops::cross_entropy_forward(context, {.logits = logits, .targets = targets, .nll = nll}); };
  };
  expect_error(forward(high), "[cross_entropy] targets[1] = 50 is not in 0..49 and not -1");
  expect_error(forward(low), "[cross_entropy] targets[2] = -2 is not in 0..49 and not -1");
  expect_error(forward(nll), "[cross_entropy] targets has type F32; expected I32");
  expect_error(
      [&] { ops::cross_entropy_backward(context, {.logits = logits, .targets = good, .lse = lse, .dlogits = logits}); },
      "[cross_entropy] lse has shape [2]; expected [3]");
  expect_error([&] { ops::lm_loss_forward(context, {.x = x, .w = w, .targets = good, .nll = nll}); },
               "[lm_loss] x [3, 4] and w [50, 5]: C differs (4 and 5)");
  expect_error([&] { ops::lm_loss_forward(context, {.x = x, .w = w4, .targets = high, .nll = nll}); },
               "[lm_loss] targets[1] = 50 is not in 0..49 and not -1");
  Tensor half({3, 4}, DType::kBF16), half_w({50, 4}, DType::kBF16);
  expect_error([&] { ops::lm_loss_forward(context, {.x = half, .w = w4, .targets = good, .nll = nll}); },
               "[lm_loss] w has type F32; expected BF16");
  expect_error(
      [&] {
        ops::lm_loss_forward_backward(context, {.x = half, .w = half_w, .targets = good, .nll = nll},
                                      {.dx = half, .dw = half_w});
      },
      "[lm_loss] dw has type BF16; expected F32");
  expect_error(
      [&] { ops::lm_loss_forward_backward(context, {.x = x, .w = w4, .targets = good, .nll = nll}, {.dx = half}); },
      "[lm_loss] dx has type BF16; expected F32");
  expect_error([&] { ops::lm_loss_forward(context, {.x = x, .w = w4, .targets = good, .nll = nll, .chunk_rows = -1}); },
               "[lm_loss] chunk_rows = -1 must not be negative");
}

}  // namespace
}  // namespace coca::test::cross_entropy_test

// Forget gates against their reference in double, within the bounds of docs/math/head_modifiers.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/ref/head_modifiers.h"
#include "coca/ops/head_modifiers.h"
#include "ops/head_modifiers_case.h"

namespace coca::ops::forget_gate_test {
namespace {

using test::Complex;
using test::Fused;
using test::in;
using test::out;
using test::Packed;

struct Shape {
  int64_t B, N, H;
  Dims sums() const { return {B, H, N}; }
};

struct Decays {
  std::vector<float> decay, end, dlogits;
};

// Logits, decay and their gradients amid others.
template <typename T>
Decays run_forget_gate(Context& cx, const Shape& s, const std::vector<float>& logits, const std::vector<float>& carry,
                       const std::vector<float>& ddecay) {
  Fused<T> z(cx, {s.B, s.N, 1, s.H}, logits), dz(cx, {s.B, s.N, 1, s.H});
  Fused<float> decay(cx, {s.B, s.H, 1, s.N}), d(cx, {s.B, s.H, 1, s.N}, ddecay);
  Packed from(cx, {s.B, s.H}, carry), end(cx, {s.B, s.H, 2});
  const auto rows = [](MutTensorRef t) { return t.select(2, 0); };
  forget_gate_forward(cx, {.logits = rows(z), .carry = from, .decay = rows(decay), .end = end});
  forget_gate_backward(cx, {.logits = rows(z), .ddecay = rows(d), .dlogits = rows(dz)});
  return {decay.values(), end.values(), dz.values()};
}

template <typename T>
void check_forget_gate(const Shape& s, double low, double high) {
  SCOPED_TRACE(fmt::format("{} N={} logits from {} to {}", dtype_name(DTypeOf<T>::value), s.N, low, high));
  const Dims of{s.B, s.N, s.H};
  const std::vector<float> logits = test::as_stored<T>(test::random_values(of.product(), 1, low, high)),
                           carry = test::random_values(s.B * s.H, 2, -50, 0),
                           ddecay = test::random_values(of.product(), 3, 0.1, 1);
  const auto z = test::as<double>(logits), start = test::as<double>(carry), d = test::as<double>(ddecay);
  std::vector<double> decay(z.size()), dz(z.size());
  ref::forget_gate<double>(in<3>(z, of), in<3>(start, {s.B, s.H, 1}), out<3>(decay, s.sums()), {});
  ref::forget_gate_backward<double>(in<3>(z, of), in<3>(d, s.sums()), out<3>(dz, of));
  // A term is within 8 roundings of itself (exp within 4), terms have one sign and so have the gradients, sums are in
  // double, and results are rounded once: 9 * 2^-24 < 2^-20. bf16 rounds gradients by another 2^-9 (2^-8 in all).
  // Gates that are nearly open: the smallest gradients are denormal.
  const double of_type = DTypeOf<T>::value == DType::kBF16 ? 0x1p-8 : 0x1p-20;
  test::for_each_way({"head_modifiers"}, [&](Context& cx) {
    const Decays got = run_forget_gate<T>(cx, s, logits, carry, ddecay);
    for (size_t i = 0; i < z.size(); ++i) {
      ASSERT_NEAR(got.decay[i], decay[i], 0x1p-20 * std::abs(decay[i])) << i;
      ASSERT_NEAR(got.dlogits[i], dz[i], of_type * std::abs(dz[i]) + 1e-36) << i;
    }
    const auto N = static_cast<size_t>(s.N);
    for (size_t i = 0; i < static_cast<size_t>(s.B * s.H); ++i)
      ASSERT_NEAR(got.end[2 * i] + static_cast<double>(got.end[2 * i + 1]), decay[i * N + N - 1],
                  0x1p-20 * std::abs(decay[i * N + N - 1]));
  });
  test::expect_same_bits(
      [&] {
        Context cx;
        Decays got = run_forget_gate<T>(cx, s, logits, carry, ddecay);
        got.decay.insert(got.decay.end(), got.dlogits.begin(), got.dlogits.end());
        return got.decay;
      },
      "forget_gate");
}

TEST(ForgetGate, IsExactToASmallPartOfTheDecay) {
  for (const Shape& s : {Shape{1, 1, 1}, Shape{2, 7, 3}, Shape{1, 2000, 5}})
    for (const auto& [low, high] : {std::pair(-2.0, 6.0), std::pair(-90.0, 90.0), std::pair(-3e4, 3e4)}) {
      check_forget_gate<float>(s, low, high);
      check_forget_gate<BF16>(s, low, high);
    }
}

TEST(ForgetGate, GradientsOfTheReferenceAreThoseOfComplexSteps) {
  const Dims of{2, 5, 3}, sums{2, 3, 5};
  const std::vector<double> z = test::as<double>(test::random_values(30, 1, -3, 3)),
                            weights = test::as<double>(test::random_values(30, 2));
  std::vector<double> dz;
  ref::forget_gate_backward<double>(in<3>(z, of), in<3>(weights, sums), out<3>(dz, of));
  const auto loss = [&](std::span<const Complex> at) {
    const std::vector<Complex> here(at.begin(), at.end());
    std::vector<Complex> decay;
    ref::forget_gate<Complex>(in<3>(here, of), {}, out<3>(decay, sums), {});
    return test::weighted_sum(decay, weights);
  };
  test::expect_gradient(dz, test::complex_step_gradient(z, loss), "forget_gate");
}

// Token by token with `end` as `carry`, the decay goes on where a number of fp32 has no room for another term:
// log sigmoid(8) = -3.35e-4, and half a unit of 1e5 in fp32 is 3.9e-3.
TEST(ForgetGate, GoesOnTokenByToken) {
  constexpr int64_t kTokens = 100;
  test::for_each_way({"head_modifiers"}, [&](Context& cx) {
    Packed logit(cx, {1, 1, 1}, {8}), decay(cx, {1, 1, 1}), end(cx, {1, 1, 2}, {-1e5f, 0}), plain(cx, {1, 1}, {-1e5f});
    for (int64_t n = 0; n < kTokens; ++n)
      forget_gate_forward(cx, {.logits = logit, .carry = end, .decay = decay, .end = end});
    const std::vector<float> sum = end.values();
    EXPECT_EQ(sum[0], decay.values()[0]);
    // 100 terms within 2^-20 of themselves, and as many roundings of 1e5 to 48 bits (2^-32 each).
    EXPECT_NEAR(sum[0] + 1e5 + static_cast<double>(sum[1]), -0.0335406, 1e-6);
    forget_gate_forward(cx, {.logits = logit, .carry = plain, .decay = decay, .end = {}});
    EXPECT_EQ(decay.values()[0], -1e5f);
  });
}

TEST(ForgetGate, MistakesAreNamed) {
  Context cx;
  using test::expect_error;
  const Tensor logits({2, 4, 3}), w({3, 2});
  Tensor decay({2, 3, 4}), turned({2, 4, 3});
  expect_error([&] { forget_gate_forward(cx, {.logits = logits, .carry = w, .decay = decay, .end = {}}); },
               "[head_modifiers] carry has shape [3, 2]; expected [2, 3]");
  expect_error([&] { forget_gate_forward(cx, {.logits = logits, .carry = {}, .decay = turned, .end = {}}); },
               "[head_modifiers] decay has shape [2, 4, 3]; expected [2, 3, 4]");
}

}  // namespace
}  // namespace coca::ops::forget_gate_test

// CLEX: its ODE compared with a second implementation, its initial state, and the gradients of its network through the
// solver and the model.
// SPDX-License-Identifier: Apache-2.0
#include "coca/model/clex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "coca/model/decoder.h"
#include "coca/ops/linear.h"
#include "support/numerics.h"
#include "support/reference_decoder.h"
#include "support/tiny_clex.h"

namespace coca::model::clex_test {
namespace {

using test::clex_model;
using test::clex_spec;
using test::Complex;
using test::TinyModel;

ClexOde ode_of(const TinyModel& m) { return ClexOde(m.spec, m.params.weights().clex_up, m.params.weights().clex_down); }

std::vector<double> doubles(TensorRef t) { return {t.as<float>(), t.as<float>() + t.numel()}; }

TEST(Clex, FactorsAreThePublishedOnes) {
  const ModelSpec s = clex_spec(test::tiny_neox(AttentionKind::kRope));
  for (const auto& [length, t] :
       {std::pair<int64_t, int64_t>{1, 1}, {8, 1}, {9, 2}, {16, 2}, {17, 3}, {32, 4}, {1000, 4}})
    EXPECT_EQ(clex_factor(s, length), t) << length;
}

// With W_down = 0 only d ln w / dt remains, so the frequencies are those of NTK with alpha = 2 t - 1.
TEST(Clex, StartsAsNtk) {
  for (const int64_t R : {2, 8, 64}) {
    ModelSpec s = test::tiny_neox(AttentionKind::kRope);
    s.C = 3 * (s.D = s.R = R);
    s.rope_theta = 5e5;  // the base of the model, not 10000
    s.rope_scaling = {.type = Scaling::kClex};
    const TinyModel m(s);
    const auto tables = ode_of(m).tables(16);
    ASSERT_EQ(tables.size(), 16u);
    for (int64_t t = 1; t <= 16; ++t) {
      ModelSpec ntk = s;
      ntk.rope_scaling = {.type = Scaling::kNtk, .factor = 2.0 * static_cast<double>(t) - 1.0};
      const std::vector<double> wanted = rope_rotation(ntk, 1).frequencies;
      // The 3/8 rule on f(t) = -2 e / (2 t - 1), e <= 1, is Simpson's 3/8 quadrature. The error of a step is h^5 / 6480
      // |f''''| with f'''' = 768 / (2 t - 1)^5. Over steps of 0.01 the sum is below h^4 / 6480 * 768 / 8 = 1.5e-10.
      for (size_t j = 0; j < wanted.size(); ++j)
        EXPECT_NEAR(tables[static_cast<size_t>(t - 1)][j], wanted[j], 2e-10 * wanted[j]) << t << " " << j;
    }
  }
}

TEST(Clex, AgreesWithTheSecondImplementation) {
  for (const ClexActivation act : {ClexActivation::kTanh, ClexActivation::kSilu})
    for (const int64_t param_factor : {1, 2}) {
      ModelSpec s = clex_spec(test::tiny_llama(AttentionKind::kCocaSlack));
      s.rope_scaling.activation = act;
      s.rope_scaling.param_factor = param_factor;
      const TinyModel m = clex_model(s);
      const ClexOde ode = ode_of(m);
      const auto tables = ode.tables(4);
      const std::vector<double> up = doubles(m.params.weights().clex_up), down = doubles(m.params.weights().clex_down);
      for (int64_t t = 1; t <= 4; ++t) {
        const std::vector<double> wanted = test::reference_clex(s, up.data(), down.data(), t),
                                  alone = ode.frequencies(ode.path(t));
        for (size_t j = 0; j < wanted.size(); ++j) {
          EXPECT_NEAR(alone[j], wanted[j], 1e-13 * wanted[j]);  // twelve steps of about 20 roundings each
          EXPECT_EQ(tables[static_cast<size_t>(t - 1)][j], alone[j]);
        }
      }
    }
}

// d (sum of c_j frequency_j) / d weights, by complex steps through the second implementation.
TEST(Clex, TheAdjointOfTheSolverIsExact) {
  for (const ClexActivation act : {ClexActivation::kTanh, ClexActivation::kSilu}) {
    ModelSpec s = clex_spec(test::tiny_neox(AttentionKind::kRope));
    s.rope_scaling.activation = act;
    const TinyModel m = clex_model(s);
    const ClexOde ode = ode_of(m);
    const std::vector<double> c = {0.3, -2, 40, 500};
    for (const int64_t t : {1, 2, 4}) {
      ParamStore grads(s);
      ode.backward(ode.path(t), c, grads.tensors().clex_up, grads.tensors().clex_down);
      std::vector<Complex> up, down;
      for (const double v : doubles(m.params.weights().clex_up)) up.emplace_back(v);
      for (const double v : doubles(m.params.weights().clex_down)) down.emplace_back(v);
      const auto check = [&](std::vector<Complex>& weights, TensorRef ours, const char* name) {
        std::vector<double> wanted;
        for (Complex& w : weights) {
          w += Complex(0, 1e-50);
          double sum = 0;
          const std::vector<Complex> f = test::reference_clex(s, up.data(), down.data(), t);
          for (size_t j = 0; j < c.size(); ++j) sum += c[j] * f[j].imag() / 1e-50;
          wanted.push_back(sum);
          w = w.real();
        }
        double largest = 0;
        for (const double w : wanted) largest = std::max(largest, std::abs(w));
        EXPECT_EQ(largest == 0, t == 1) << name;    // at t = 1 no equation is solved
        for (size_t i = 0; i < wanted.size(); ++i)  // rounded to float once
          EXPECT_NEAR(ours.as<float>()[i], wanted[i], 0x1p-24 * std::abs(wanted[i]) + 1e-12 * largest)
              << name << " " << i << " t " << t;
      };
      check(up, grads.tensors().clex_up, "up");
      check(down, grads.tensors().clex_down, "down");
    }
  }
}

class ClexOfSpec : public testing::TestWithParam<test::NamedSpec> {};
INSTANTIATE_TEST_SUITE_P(Specs, ClexOfSpec, testing::ValuesIn(test::clex_specs()), test::spec_test_name);

// The whole chain from the loss through the angles of all heads and layers, the frequencies and the solver to the
// network, together with the other weights.
TEST_P(ClexOfSpec, GradientsAreThoseOfPlainLoops) {
  const TinyModel m = clex_model(GetParam().spec);
  constexpr int64_t kB = 2, kN = 6, kLength = 24;  // t = 3
  const std::vector<double> positions = {0, 3, 4.5, 11, 17, 23, 2, 5, 6, 7, 19, 20};
  const std::vector<int32_t> ids = test::random_ids(kB * kN, m.spec.V, 5),
                             targets = test::random_ids(kB * kN, m.spec.V, 6);
  test::ReferenceDecoder<Complex> reference(m.spec, m.params);
  const auto loss = [&] {
    Complex sum = 0;
    for (int64_t b = 0; b < kB; ++b) {
      reference.set_positions({positions.begin() + b * kN, positions.begin() + (b + 1) * kN});
      const std::vector<Complex> logits = reference.run({ids.data() + b * kN, static_cast<size_t>(kN)}, kLength);
      for (int64_t n = 0; n < kN; ++n)
        sum += test::reference_nll(logits.data() + n * m.spec.V, m.spec.V, targets[static_cast<size_t>(b * kN + n)]);
    }
    return sum;
  };
  Context cx;
  TrainingDecoder training(m.spec, kB, kN);
  ParamStore grads(m.spec);
  const TensorRef nll = training.forward_backward(cx, m.params.weights(), {ids.data(), DType::kI32, {kB, kN}, kHost},
                                                  {targets.data(), DType::kI32, {kB, kN}, kHost}, 1.0f, grads.tensors(),
                                                  {}, {.positions = positions, .scaling_length = kLength});
  EXPECT_NEAR(std::accumulate(nll.as<float>(), nll.as<float>() + kB * kN, 0.0), loss().real(), 1e-3);
  Rng rng(3);
  for (const ParamInfo& info : grads.infos()) {
    const bool network = info.role == ParamRole::kClexUp || info.role == ParamRole::kClexDown;
    if (!network && info.role != ParamRole::kEmbedding) continue;
    const float* ours = grads.at(info).as<float>();
    const int64_t n = info.shape.product();
    int64_t largest = 0;
    for (int64_t i = 0; i < n; ++i) largest = std::abs(ours[i]) > std::abs(ours[largest]) ? i : largest;
    ASSERT_GT(std::abs(ours[largest]), 0.0f) << info.name;
    for (const int64_t i : {largest, static_cast<int64_t>(rng.below(static_cast<uint64_t>(n))),
                            static_cast<int64_t>(rng.below(static_cast<uint64_t>(n)))}) {
      Complex& weight = reference.weights()[info.offset + static_cast<size_t>(i)];
      weight += Complex(0, 1e-50);
      const double expected = loss().imag() / 1e-50;
      weight = weight.real();
      // decoder_test.cc's bound for a gradient. A frequency sums the gradients of all tokens' angles times their
      // positions, with both signs: another factor of ten.
      EXPECT_NEAR(ours[i], expected, (network ? 1e-3 : 1e-4) * static_cast<double>(std::abs(ours[largest])))
          << info.name << " at " << i;
    }
  }
}

TEST_P(ClexOfSpec, EvaluationTakesTheTableOfTheLength) {
  const TinyModel m = clex_model(GetParam().spec);
  Context cx;
  constexpr int64_t kN = 20;  // t = 3
  const std::vector<int32_t> ids = test::random_ids(kN, m.spec.V, 5);
  const TensorRef row(ids.data(), DType::kI32, {1, kN}, kHost);
  Decoder decoder(m.spec, m.params.weights());
  const TensorRef hidden = decoder.forward(cx, row);
  Tensor logits({kN, m.spec.V});
  ops::linear_forward(cx, {.x = hidden, .w = m.params.weights().head, .y = logits});
  test::ReferenceDecoder<double> exact(m.spec, m.params);
  test::ReferenceDecoder<float> naive(m.spec, m.params);
  const std::vector<double> right = exact.run(ids, kN);
  const std::vector<float> rough = test::farthest_naive(right, [&](int64_t first_term) {
    naive.set_first_term(first_term);
    return naive.run(ids, kN);
  });
  test::expect_close(logits.values<float>(), right, rough, {.terms = 800}, "clex");  // as in decoder_test.cc
}

template <typename Body>
void expect_refused(const Body& body, const std::string& text) {
  try {
    body();
    ADD_FAILURE() << "no Error; expected " << text;
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr(text));
  }
}

TEST(Clex, MistakesAreNamed) {
  const TinyModel plain(test::tiny_neox(AttentionKind::kRope));
  const ModelSpec scaled = with_scaling(plain.spec, Scaling::kClex, 3.0);
  EXPECT_EQ(scaled.rope_scaling.max_factor, 3);
  Context cx;
  const std::vector<int32_t> ids(5, 1);
  Decoder decoder(scaled, plain.params.weights());
  expect_refused(
      [&] {
        decoder.forward(cx, {ids.data(), DType::kI32, {1, 5}, kHost});
      },
      "needs the weights of its network");
  expect_refused([&] { with_scaling(plain.spec, Scaling::kClex, 2.5); }, "a whole number of 1 to 1024, not 2.5");
  expect_refused([&] { with_scaling(test::tiny_neox(AttentionKind::kXpos), Scaling::kClex, {}); },
                 "cannot be combined with xPos");
  ModelSpec step = scaled;
  step.rope_scaling.time_step = 0;
  expect_refused([&] { validate(step); }, "time_dt 0");
}

}  // namespace
}  // namespace coca::model::clex_test

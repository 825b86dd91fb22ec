// Training at positions other than 0, 1, 2, ...: values and gradients compared with plain loops.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "coca/model/decoder.h"
#include "support/numerics.h"
#include "support/reference_decoder.h"
#include "support/tiny_model.h"

namespace coca::model::drawn_positions_test {
namespace {

using test::Complex;
using test::TinyModel;

constexpr int64_t kB = 2, kN = 7, kScalingLength = 64;

// Sorted and distinct, with different positions in each row; some are fractions, since CLEX divides them.
std::vector<double> drawn() { return {0, 3, 4.5, 17, 18, 40, 63, 2, 5, 6, 7, 31, 32.25, 50}; }

struct Trained {
  TinyModel m;
  std::vector<int32_t> ids, targets;
  ParamStore grads;
  Context cx;
  std::vector<float> nll;

  explicit Trained(const ModelSpec& spec)
      : m(spec),
        ids(test::random_ids(kB * kN, spec.V, 5)),
        targets(test::random_ids(kB * kN, spec.V, 6)),
        grads(spec) {}
  void forward_backward(const DrawnPositions& at, TensorRef document_start = {}) {
    TrainingDecoder training(m.spec, kB, kN);
    const TensorRef out = training.forward_backward(cx, m.params.weights(), {ids.data(), DType::kI32, {kB, kN}, kHost},
                                                    {targets.data(), DType::kI32, {kB, kN}, kHost}, 1.0f,
                                                    grads.tensors(), document_start, at);
    nll.assign(out.as<float>(), out.as<float>() + out.numel());
  }
  bool same_bits(const Trained& other) const {
    return nll == other.nll && std::memcmp(grads.flat().data, other.grads.flat().data, grads.flat().bytes()) == 0;
  }
};

// Every form of score once. decoder_test covers how each architecture and scaling forms its angles.
std::vector<test::NamedSpec> forms() {
  std::vector<test::NamedSpec> all = test::rotary_specs();
  std::erase_if(all, [](const test::NamedSpec& s) {
    const std::vector<std::string> kept = {"llama_rope",      "neox_partial_coca_slack", "neox_coca_strict",
                                           "llama_coca_tied", "llama_coca_slack_xpos",   "neox_official_fold"};
    return std::ranges::find(kept, s.name) == kept.end();
  });
  return all;
}

class DrawnPositionsOfSpec : public testing::TestWithParam<test::NamedSpec> {};
INSTANTIATE_TEST_SUITE_P(Specs, DrawnPositionsOfSpec, testing::ValuesIn(forms()), test::spec_test_name);

template <typename T>
T loss_at(test::ReferenceDecoder<T>& decoder, const Trained& run, const std::vector<double>& positions) {
  T loss = 0;
  for (int64_t b = 0; b < kB; ++b) {
    decoder.set_positions({positions.begin() + b * kN, positions.begin() + (b + 1) * kN});
    const std::vector<T> logits = decoder.run({run.ids.data() + b * kN, static_cast<size_t>(kN)}, kScalingLength);
    for (int64_t n = 0; n < kN; ++n)
      loss += test::reference_nll(logits.data() + n * run.m.spec.V, run.m.spec.V,
                                  run.targets[static_cast<size_t>(b * kN + n)]);
  }
  return loss;
}

TEST_P(DrawnPositionsOfSpec, LossAndGradientsAreThoseOfPlainLoops) {
  Trained run(GetParam().spec);
  if (run.m.spec.rope_scaling.type == Scaling::kNone) run.m.spec.rope_scaling = {Scaling::kDynamic, 2.0};
  const std::vector<double> positions = drawn();
  run.forward_backward({.positions = positions, .scaling_length = kScalingLength});
  test::ReferenceDecoder<double> exact(run.m.spec, run.m.params);
  const double loss = std::accumulate(run.nll.begin(), run.nll.end(), 0.0);
  // The bounds of decoder_test.cc: 2000 roundings for a gradient, relative to its tensor's largest number; 14 logits
  // with 800 roundings each for the loss.
  EXPECT_NEAR(loss, loss_at(exact, run, positions), 1e-4 * loss);
  test::ReferenceDecoder<Complex> reference(run.m.spec, run.m.params);
  Rng rng(3);
  for (const ParamInfo& info : run.grads.infos()) {
    const float* ours = run.grads.at(info).as<float>();
    const int64_t n = info.shape.product();
    const auto size = [&](int64_t i) { return std::abs(ours[i]); };
    int64_t largest = 0;
    for (int64_t i = 0; i < n; ++i) largest = size(i) > size(largest) ? i : largest;
    ASSERT_GT(size(largest), 0.0f) << info.name;
    for (const int64_t i : {largest, static_cast<int64_t>(rng.below(static_cast<uint64_t>(n)))}) {
      constexpr double kStep = 1e-50;
      Complex& weight = reference.weights()[info.offset + static_cast<size_t>(i)];
      weight += Complex(0, kStep);
      const double expected = loss_at(reference, run, positions).imag() / kStep;
      weight = weight.real();
      EXPECT_NEAR(ours[i], expected, 1e-4 * static_cast<double>(size(largest))) << info.name << " at " << i;
    }
  }
}

TEST(DrawnPositions, OneRowServesAllAndPlainPositionsArePlain) {
  for (const AttentionKind kind : {AttentionKind::kRope, AttentionKind::kCocaSlack}) {
    const ModelSpec spec = test::tiny_neox(kind);
    std::vector<double> counted(kN);
    std::iota(counted.begin(), counted.end(), 0.0);
    Trained plain(spec), given(spec), row(spec), rows(spec);
    plain.forward_backward({});
    given.forward_backward({.positions = counted});
    EXPECT_TRUE(plain.same_bits(given));
    std::vector<double> both = drawn();
    std::copy_n(both.begin(), kN, both.begin() + kN);
    row.forward_backward({.positions = std::span<const double>(both).first(kN)});
    rows.forward_backward({.positions = both});
    EXPECT_TRUE(row.same_bits(rows));
    EXPECT_FALSE(plain.same_bits(row));
  }
}

void expect_refused(const ModelSpec& spec, const DrawnPositions& at, TensorRef document_start,
                    const std::string& text) {
  Trained run(spec);
  try {
    run.forward_backward(at, document_start);
    ADD_FAILURE() << "no Error; expected " << text;
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr(text));
  }
}

TEST(DrawnPositions, UnsupportedPositionsAreRefused) {
  const std::vector<double> positions = drawn();
  expect_refused(test::tiny_neox(AttentionKind{Score::kSlack, Encoding::kAlibi}), {.positions = positions}, {},
                 "ALiBi's bias depends on the distance in tokens");
  expect_refused(test::tiny_neox(AttentionKind::kRope), {.positions = std::span(positions).first(5)}, {},
                 "5 positions; expected [1, 7] or [2, 7]");
  const std::vector<int32_t> starts(kB * kN, 0);
  expect_refused(test::tiny_neox(AttentionKind::kRope), {.positions = positions},
                 {starts.data(), DType::kI32, {kB, kN}, kHost}, "positions of packed documents begin at 0");
}

}  // namespace
}  // namespace coca::model::drawn_positions_test

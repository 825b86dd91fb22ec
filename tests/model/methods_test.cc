// Every combination that the table calls valid gives the reference's result in double, and every trainable one gives
// its gradient. All others are refused with the reason.
// SPDX-License-Identifier: Apache-2.0
#include "coca/model/methods.h"

#include <gtest/gtest.h>

#include "coca/model/decoder.h"
#include "coca/ops/linear.h"
#include "support/numerics.h"
#include "support/reference_decoder.h"
#include "support/tiny_model.h"

namespace coca::model::methods_test {
namespace {

constexpr int64_t kN = 26;  // exceeds the 8 trained tokens and each pattern's border to far keys

ModelSpec tiny() {
  ModelSpec s = test::tiny_llama(AttentionKind::kRope);
  s.L = 1;
  return s;
}

// The combination with parameters that reach each branch within so few tokens.
ModelSpec spec_of(const Method& m) {
  ModelSpec s = method_spec(tiny(), m.attention, m.scaling, m.sight);
  s.rope_scaling = test::tiny_scaling(m.scaling, s.R / 2);
  return s;
}

std::string name_of(const Method& m) {
  return fmt::format("{} x {} x {}", enum_name(m.attention), enum_name(m.scaling), enum_name(m.sight));
}

TEST(Methods, ValidOnesMatchTheReference) {
  int64_t checked = 0;
  for (const Method& method : all_methods(tiny())) {
    if (method.use == MethodUse::kNone) continue;
    SCOPED_TRACE(name_of(method));
    const test::TinyModel m(spec_of(method));
    const std::vector<int32_t> ids = test::random_ids(kN, m.spec.V, 3);
    Context cx;
    Decoder decoder(m.spec, m.params.weights());
    Tensor logits({kN, m.spec.V});
    ops::linear_forward(cx, {.x = decoder.forward(cx, TensorRef(ids.data(), DType::kI32, {1, kN}, kHost)),
                             .w = m.params.weights().head,
                             .y = logits});
    test::ReferenceDecoder<double> exact(m.spec, m.params);
    test::ReferenceDecoder<float> naive(m.spec, m.params);
    const std::vector<double> right = exact.run(ids, kN);
    const std::vector<float> rough = test::farthest_naive(right, [&](int64_t first_term) {
      naive.set_first_term(first_term);
      return naive.run(ids, kN);
    });
    // One layer: about ten operations with sums of up to 40 terms.
    test::expect_close(logits.values<float>(), right, rough, {.terms = 400}, "logits");
    ++checked;
  }
  EXPECT_GT(checked, 200);
}

// The derivative of the loss along one random direction of all weights by complex step must equal the sum of gradient
// times direction. An error in a large part of any gradient changes that sum.
TEST(Methods, ThoseThatTrainHaveTheGradientOfTheReference) {
  using test::Complex;
  constexpr int64_t kTrain = 12;
  int64_t checked = 0;
  for (const Method& method : all_methods(tiny())) {
    if (method.use != MethodUse::kTraining) continue;
    SCOPED_TRACE(name_of(method));
    const test::TinyModel m(spec_of(method));
    const std::vector<int32_t> ids = test::random_ids(kTrain + 1, m.spec.V, 4);
    ParamStore grads(m.spec);
    Context cx;
    TrainingDecoder decoder(m.spec, 1, kTrain);
    decoder.forward_backward(cx, m.params.weights(), TensorRef(ids.data(), DType::kI32, {1, kTrain}, kHost),
                             TensorRef(ids.data() + 1, DType::kI32, {1, kTrain}, kHost), 1.0f, grads.tensors());
    test::ReferenceDecoder<Complex> reference(m.spec, m.params);
    Rng rng(7);
    constexpr double kStep = 1e-30;
    double ours = 0, size = 0;
    const float* g = grads.flat().as<float>();
    for (size_t i = 0; i < reference.weights().size(); ++i) {
      const double direction = rng.normal(), term = direction * static_cast<double>(g[i]);
      reference.weights()[i] += Complex(0, kStep * direction);
      ours += term;
      size += term * term;
    }
    const std::vector<Complex> logits = reference.run(std::span(ids).subspan(0, kTrain), kTrain);
    Complex loss(0);
    for (int64_t n = 0; n < kTrain; ++n)
      loss += test::reference_nll(logits.data() + n * m.spec.V, m.spec.V, ids[static_cast<size_t>(n) + 1]);
    // Each weight's gradient has an error of about 400 roundings of its size. In the sum they add up like independent
    // random numbers.
    EXPECT_NEAR(ours, loss.imag() / kStep, 400 * 0x1p-24 * 4 * std::sqrt(size)) << std::sqrt(size);
    ++checked;
  }
  EXPECT_GE(checked, 70);
}

TEST(Methods, TheOthersAreRefusedWithTheReason) {
  int64_t refused = 0;
  for (const Method& method : all_methods(tiny())) {
    EXPECT_EQ(method.use == MethodUse::kNone, !method.reason.empty()) << name_of(method);
    if (method.use != MethodUse::kNone) continue;
    ++refused;
    const char* wanted =
        method.scaling != Scaling::kNone && !uses_rotary(method.attention)         ? "needs rotary positions"
        : method.scaling == Scaling::kClex && uses_xpos(method.attention)          ? "clex cannot be combined with xPos"
        : method.sight == Sight::kLongformerEncoder && uses_xpos(method.attention) ? "decays with the distance back"
        : method.sight >= Sight::kLongformer ? "global tokens cannot be combined with rope scaling clex"
                                             : "pattern";
    EXPECT_NE(method.reason.find(wanted), std::string::npos) << method.reason;
  }
  EXPECT_GT(refused, 100);
}

// Files, flags and reports use these names.
TEST(Methods, EveryPairOfScoreAndPositionHasItsName) {
  std::vector<std::string> names;
  for (const Score score : {Score::kDot, Score::kSlack, Score::kStrict, Score::kTied})
    for (const Encoding position : {Encoding::kRotary, Encoding::kXpos, Encoding::kAlibi, Encoding::kNone})
      names.emplace_back(enum_name(AttentionKind{score, position}));
  EXPECT_EQ(names,
            (std::vector<std::string>{"rope", "xpos", "alibi", "none",                                             //
                                      "coca-slack", "coca-slack-xpos", "coca-slack-alibi", "coca-slack-none",      //
                                      "coca-strict", "coca-strict-xpos", "coca-strict-alibi", "coca-strict-none",  //
                                      "coca-tied", "coca-tied-xpos", "coca-tied-alibi", "coca-tied-none"}));
  EXPECT_EQ(EnumTraits<AttentionKind>::names().size(), names.size());
}

}  // namespace
}  // namespace coca::model::methods_test

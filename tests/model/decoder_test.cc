// The whole decoder and its gradients compared with plain loops, for every choice in a spec.
// SPDX-License-Identifier: Apache-2.0
#include "coca/model/decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "coca/base/parallel.h"
#include "coca/ops/cross_entropy.h"
#include "coca/ops/linear.h"
#include "support/numerics.h"
#include "support/reference_decoder.h"
#include "support/targets.h"
#include "support/tiny_model.h"

namespace coca::model::decoder_test {
namespace {

using test::Complex;
using test::TinyModel;

constexpr int64_t kB = 2, kN = 9;

struct Batch {
  std::vector<int32_t> ids, targets;
  TensorRef ids_ref() const { return {ids.data(), DType::kI32, {kB, kN}, kHost}; }
  TensorRef targets_ref() const { return {targets.data(), DType::kI32, {kB, kN}, kHost}; }
};
Batch batch_of(const TinyModel& m) {
  Batch batch{test::random_ids(kB * kN, m.spec.V, 5), test::random_ids(kB * kN, m.spec.V, 6)};
  batch.targets[3] = batch.targets[12] = ops::kIgnoreTarget;
  return batch;
}

std::vector<float> packed(TensorRef t) {  // any strides, rank 4
  std::vector<float> out;
  const auto v = t.view<float, 4>();
  for (int64_t a = 0; a < v.size(0); ++a)
    for (int64_t b = 0; b < v.size(1); ++b)
      for (int64_t c = 0; c < v.size(2); ++c) out.insert(out.end(), v.ptr(a, b, c), v.ptr(a, b, c) + v.size(3));
  return out;
}

class DecoderOfSpec : public testing::TestWithParam<test::NamedSpec> {
 protected:
  TinyModel m{GetParam().spec};
  Batch batch = batch_of(m);
  Context cx;
};
INSTANTIATE_TEST_SUITE_P(Specs, DecoderOfSpec, testing::ValuesIn(test::all_specs()), test::spec_test_name);

TEST_P(DecoderOfSpec, LogitsAreThoseOfPlainLoops) {
  for (const Scaling scaling : test::weightless_scalings()) {
    if (!uses_rotary(m.spec.attention) && scaling != Scaling::kNone) continue;
    m.spec.rope_scaling = test::tiny_scaling(scaling, m.spec.R / 2);
    test::ReferenceDecoder<double> exact(m.spec, m.params);
    test::ReferenceDecoder<float> naive(m.spec, m.params);
    const std::vector<double> right = test::run_rows(exact, batch.ids, kB);
    const std::vector<float> rough = test::farthest_naive(right, [&](int64_t first_term) {
      naive.set_first_term(first_term);
      return test::run_rows(naive, batch.ids, kB);
    });
    const auto ours = [&] {
      Decoder decoder(m.spec, m.params.weights());
      const TensorRef hidden = decoder.forward(cx, batch.ids_ref());
      Tensor logits({kB * kN, m.spec.V});
      ops::linear_forward(cx, {.x = hidden, .w = m.params.weights().head, .y = logits});
      return test::float_values(logits);
    };
    // A logit depends on two layers of about ten operations with sums of up to 40 terms: 800 roundings.
    const auto check = [&] {
      test::expect_close(ours(), right, rough, {.terms = 800}, std::string(enum_name(scaling)));
    };
    scaling == Scaling::kNone ? test::for_each_target(check) : check();
  }
}

TEST_P(DecoderOfSpec, ThreadsDoNotChangeABit) {
  const int before = max_threads();
  std::vector<std::vector<float>> hidden;
  for (const int threads : {1, 2, 3}) {
    set_max_threads(threads);
    Decoder decoder(m.spec, m.params.weights());
    const TensorRef h = decoder.forward(cx, batch.ids_ref());
    hidden.emplace_back(h.as<float>(), h.as<float>() + h.numel());
    EXPECT_EQ(hidden.back(), hidden.front()) << threads << " threads";
  }
  set_max_threads(before);
}

// Training and evaluation compute the same: every layer's attention output bit by bit, and the loss.
TEST_P(DecoderOfSpec, TrainingForwardIsTheDecoder) {
  const auto record = [](std::map<std::string, std::vector<float>>& into) {
    return [&into](std::string_view name, TensorRef value) {
      if (name.ends_with(".o")) into[std::string(name)] = packed(value);
    };
  };
  std::map<std::string, std::vector<float>> evaluated, trained;
  cx.set_trace(record(evaluated));
  Decoder decoder(m.spec, m.params.weights());
  const TensorRef hidden = decoder.forward(cx, batch.ids_ref());
  cx.set_trace({});
  Tensor nll({kB * kN});
  ops::lm_loss_forward(
      cx, {.x = hidden, .w = m.params.weights().head, .targets = batch.targets_ref().reshape({kB * kN}), .nll = nll});
  const std::vector<float> expected(nll.values<float>().begin(), nll.values<float>().end());

  cx.set_trace(record(trained));
  TrainingDecoder training(m.spec, kB, kN);
  ParamStore grads(m.spec);
  const TensorRef ours =
      training.forward_backward(cx, m.params.weights(), batch.ids_ref(), batch.targets_ref(), 1.0f, grads.tensors());
  ASSERT_EQ(evaluated.size(), static_cast<size_t>(m.spec.L));
  EXPECT_EQ(trained, evaluated);
  // The fused loss sums in another order: a few roundings of values up to about 20.
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(ours.as<float>()[i], expected[i], 1e-5) << i;
  EXPECT_EQ(ours.as<float>()[3], 0.0f);
  EXPECT_EQ(ours.as<float>()[12], 0.0f);
}

// d(sum of nll) by complex steps through the plain loops. Without subtraction they are exact to double rounding.
double exact_gradient(test::ReferenceDecoder<Complex>& decoder, const Batch& batch, int64_t V, size_t at) {
  constexpr double kStep = 1e-50;
  decoder.weights()[at] += Complex(0, kStep);
  Complex loss = 0;
  for (int64_t b = 0; b < kB; ++b) {
    const std::vector<Complex> logits = decoder.run({batch.ids.data() + b * kN, static_cast<size_t>(kN)}, kN);
    for (int64_t n = 0; n < kN; ++n) {
      const int32_t target = batch.targets[static_cast<size_t>(b * kN + n)];
      if (target != ops::kIgnoreTarget) loss += test::reference_nll(logits.data() + n * V, V, target);
    }
  }
  decoder.weights()[at] = decoder.weights()[at].real();
  return loss.imag() / kStep;
}

TEST_P(DecoderOfSpec, GradientsAreThoseOfPlainLoops) {
  if (model::uses_rotary(m.spec.attention))
    m.spec.rope_scaling = {Scaling::kDynamic, 2.0};  // nine tokens with a trained length of eight
  TrainingDecoder training(m.spec, kB, kN);
  ParamStore grads(m.spec);
  constexpr float kScale = 0.5f;
  training.forward_backward(cx, m.params.weights(), batch.ids_ref(), batch.targets_ref(), kScale, grads.tensors());
  test::ReferenceDecoder<Complex> reference(m.spec, m.params);
  Rng rng(3);
  for (const ParamInfo& info : grads.infos()) {
    const float* ours = grads.at(info).as<float>();
    const int64_t n = info.shape.product();
    const auto size = [&](int64_t i) { return std::abs(ours[i]); };
    int64_t largest = 0;
    for (int64_t i = 0; i < n; ++i) largest = size(i) > size(largest) ? i : largest;
    ASSERT_GT(size(largest), 0.0f) << info.name << ": the whole gradient is zero";
    for (const int64_t i : {largest, static_cast<int64_t>(rng.below(static_cast<uint64_t>(n))),
                            static_cast<int64_t>(rng.below(static_cast<uint64_t>(n)))}) {
      const double expected = kScale * exact_gradient(reference, batch, m.spec.V, info.offset + static_cast<size_t>(i));
      // Forward and backward through two layers of ten operations, sums of up to 50 terms: 2000 roundings of float,
      // which is sqrt(2000) eps = 5e-6 of the largest gradient. CoCA's products of three numbers allow another factor
      // of ten.
      EXPECT_NEAR(ours[i], expected, 1e-4 * static_cast<double>(size(largest))) << info.name << " at " << i;
    }
  }
}

TEST_P(DecoderOfSpec, GradientsAccumulate) {
  TrainingDecoder training(m.spec, kB, kN);
  ParamStore once(m.spec), twice(m.spec);
  training.forward_backward(cx, m.params.weights(), batch.ids_ref(), batch.targets_ref(), 1.0f, once.tensors());
  for (int i = 0; i < 2; ++i)
    training.forward_backward(cx, m.params.weights(), batch.ids_ref(), batch.targets_ref(), 1.0f, twice.tensors());
  for (const ParamInfo& info : once.infos()) {
    double largest = 0;
    for (int64_t i = 0; i < info.shape.product(); ++i)
      largest = std::max(largest, std::abs(static_cast<double>(once.at(info).as<float>()[i])));
    for (int64_t i = 0; i < info.shape.product(); ++i)  // accumulation rounds in another order
      ASSERT_NEAR(twice.at(info).as<float>()[i], 2.0 * static_cast<double>(once.at(info).as<float>()[i]),
                  1e-5 * largest)
          << info.name << " " << i;
  }
}

// Rows of a batch do not see each other, and no token sees later ones.
TEST_P(DecoderOfSpec, TokensSeeOnlyTheirPast) {
  Decoder decoder(m.spec, m.params.weights());
  const auto hidden = [&](const Batch& b) {
    const TensorRef h = decoder.forward(cx, b.ids_ref());
    return std::vector<float>(h.as<float>(), h.as<float>() + h.numel());
  };
  const std::vector<float> before = hidden(batch);
  Batch changed = batch;
  changed.ids[5] = (changed.ids[5] + 1) % static_cast<int32_t>(m.spec.V);  // row 0, token 5
  const std::vector<float> after = hidden(changed);
  const auto row = [&](const std::vector<float>& h, int64_t i) {
    return std::vector<float>(h.begin() + i * m.spec.C, h.begin() + (i + 1) * m.spec.C);
  };
  for (int64_t i = 0; i < kB * kN; ++i) {
    if (i >= 5 && i < kN) {
      EXPECT_NE(row(after, i), row(before, i)) << i;
    } else {
      EXPECT_EQ(row(after, i), row(before, i)) << i;
    }
  }
}

TEST(Decoder, MistakesAreNamed) {
  const TinyModel m(test::tiny_neox(AttentionKind::kRope));
  Context cx;
  Decoder decoder(m.spec, m.params.weights());
  const auto message = [](const char* text) { return testing::ThrowsMessage<Error>(testing::HasSubstr(text)); };
  const std::vector<int32_t> ids = {1, 2, -1, 4};
  EXPECT_THAT([&] { decoder.forward(cx, {ids.data(), DType::kI32, {2, 2}, kHost}); }, message("-1"));
  EXPECT_THAT([&] { decoder.forward(cx, {ids.data(), DType::kI32, {4}, kHost}); }, message("[B, N]"));
  EXPECT_THAT([&] { decoder.forward(cx, {ids.data(), DType::kI32, {1, 0}, kHost}); }, message("non-empty"));
  EXPECT_THAT([&] { TrainingDecoder(m.spec, 0, 4); }, message("batch 0"));
  TrainingDecoder training(m.spec, 1, 3);
  ParamStore grads(m.spec);
  EXPECT_THAT(
      [&] {
        training.forward_backward(cx, m.params.weights(), {ids.data(), DType::kI32, {2, 2}, kHost},
                                  {ids.data(), DType::kI32, {2, 2}, kHost}, 1.0f, grads.tensors());
      },
      message("must be [1, 3]"));
  ModelSpec odd = m.spec;
  odd.D = 7;
  EXPECT_THAT([&] { Decoder(odd, m.params.weights()); }, message("7 must be even"));
}

}  // namespace
}  // namespace coca::model::decoder_test

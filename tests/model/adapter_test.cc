// SPDX-License-Identifier: Apache-2.0
#include "coca/model/adapter.h"

#include <gmock/gmock.h>

#include <cmath>

#include "coca/kernels/ref/lora.h"
#include "coca/model/decoder.h"
#include "coca/ops/cross_entropy.h"
#include "support/numerics.h"
#include "support/reference_decoder.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace coca::model::adapter_test {
namespace {

using test::Complex;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kB = 2, kN = 9;

struct Ids {
  std::vector<int32_t> ids, targets;
  explicit Ids(int64_t V) : ids(test::random_ids(kB * kN, V, 1)), targets(test::random_ids(kB * kN, V, 2)) {}
  TensorRef ids_ref() const { return {ids.data(), DType::kI32, {kB, kN}, kHost}; }
  TensorRef targets_ref() const { return {targets.data(), DType::kI32, {kB, kN}, kHost}; }
};

void fill_randomly(Adapter& adapter, double size, uint64_t seed) {
  Rng rng(seed);
  for (const ParamInfo& info : adapter.tensors().infos()) {
    float* values = adapter.tensors().at(info).as<float>();
    for (int64_t i = 0; i < info.shape.product(); ++i) values[i] = static_cast<float>(size * rng.normal());
  }
}

Adapter adapter_of(const ModelSpec& spec, const LoraSettings& settings, const std::vector<std::string>& patterns = {}) {
  return Adapter(spec, settings, select_lora_targets(spec, settings, patterns));
}

class AdapterInSpec : public testing::TestWithParam<test::NamedSpec> {};

// The low-rank branch computes the same as merged weights.
TEST_P(AdapterInSpec, MergedWeightsComputeTheSame) {
  test::TinyModel m(GetParam().spec);
  const Ids batch(m.spec.V);
  Adapter adapter = adapter_of(m.spec, {.rank = 3, .alpha = 6});
  fill_randomly(adapter, 0.2, 5);
  Weights bound = m.params.weights();
  adapter.bind(adapter.tensors(), bound);
  Context cx;
  TrainingDecoder decoder(m.spec, kB, kN);
  const auto loss = [&](const Weights& w) {
    const TensorRef nll = decoder.loss(cx, w, batch.ids_ref(), batch.targets_ref());
    return std::vector<float>(nll.as<float>(), nll.as<float>() + nll.numel());
  };
  const std::vector<float> plain = loss(m.params.weights()), branch = loss(bound);
  Decoder forward(m.spec, bound);  // the forward-only decoder supports branches too
  const TensorRef hidden = forward.forward(cx, batch.ids_ref());
  Tensor nll({kB * kN});
  ops::lm_loss_forward(cx,
                       {.x = hidden, .w = bound.head, .targets = batch.targets_ref().reshape({kB * kN}), .nll = nll});
  merge_adapter(adapter, m.params);
  const std::vector<float> merged = loss(m.params.weights());
  double moved = 0;
  for (size_t i = 0; i < merged.size(); ++i) {
    // Sums of at most 40 + 3 terms in another order through two layers; as in decoder_test.cc, roundings of values up
    // to 20.
    EXPECT_NEAR(branch[i], merged[i], 1e-4) << i;
    EXPECT_NEAR(nll.values<float>()[i], branch[i], 1e-5) << i;
    moved = std::max(moved, std::abs(static_cast<double>(plain[i]) - static_cast<double>(merged[i])));
  }
  EXPECT_GT(moved, 0.1);  // the adapter has an effect
}

// d(sum of nll) of every A and B, compared with exact derivatives of the loss in double, computed by plain loops with W
// + s B A.
TEST_P(AdapterInSpec, GradientsAreThoseOfPlainLoops) {
  const test::TinyModel m(GetParam().spec);
  const Ids batch(m.spec.V);
  Adapter adapter = adapter_of(m.spec, {.rank = 2, .alpha = 3});
  fill_randomly(adapter, 0.2, 7);
  Weights bound = m.params.weights();
  adapter.bind(adapter.tensors(), bound);
  Context cx;
  TrainingDecoder decoder(m.spec, kB, kN);
  TensorStore grads(adapter.tensors().infos());
  MutWeights grad_tensors;
  grad_tensors.layers.resize(static_cast<size_t>(m.spec.L));
  adapter.bind_gradients(grads, grad_tensors);
  decoder.forward_backward(cx, bound, batch.ids_ref(), batch.targets_ref(), 1.0f, grad_tensors);

  test::ReferenceDecoder<Complex> reference(m.spec, m.params);
  const std::vector<Complex> base = reference.weights();
  // Complex step along one element of A or B: W changes by s B dA or s dB A.
  const auto exact = [&](size_t target, bool of_a, int64_t row, int64_t col) {
    constexpr double kStep = 1e-50;
    reference.weights() = base;
    for (size_t i = 0; i < adapter.targets().size(); ++i) {
      const LoraTarget& t = adapter.targets()[i];
      const float *a = adapter.tensors().at(adapter.tensors().infos()[2 * i]).as<float>(),
                  *b = adapter.tensors().at(adapter.tensors().infos()[2 * i + 1]).as<float>();
      const auto info =
          std::ranges::find_if(m.params.infos(), [&](const ParamInfo& p) { return p.name == t.module + ".weight"; });
      for (int64_t n = 0; n < t.out; ++n)
        for (int64_t k = 0; k < t.in; ++k) {
          Complex sum = 0;
          for (int64_t r = 0; r < t.rank; ++r) {
            Complex ar = static_cast<double>(a[r * t.in + k]), br = static_cast<double>(b[n * t.rank + r]);
            if (i == target && of_a && r == row && k == col) ar += Complex(0, kStep);
            if (i == target && !of_a && n == row && r == col) br += Complex(0, kStep);
            sum += ar * br;
          }
          reference.weights()[info->offset + static_cast<size_t>(n * t.in + k)] += 1.5 * sum;
        }
    }
    Complex loss = 0;
    for (int64_t b = 0; b < kB; ++b) {
      const std::vector<Complex> logits = reference.run({batch.ids.data() + b * kN, static_cast<size_t>(kN)}, kN);
      for (int64_t n = 0; n < kN; ++n)
        loss +=
            test::reference_nll(logits.data() + n * m.spec.V, m.spec.V, batch.targets[static_cast<size_t>(b * kN + n)]);
    }
    return loss.imag() / kStep;
  };
  Rng rng(11);
  for (size_t i = 0; i < grads.infos().size(); ++i) {
    const ParamInfo& info = grads.infos()[i];
    const float* ours = grads.at(info).as<float>();
    int64_t at = 0;
    for (int64_t k = 0; k < info.shape.product(); ++k) at = std::abs(ours[k]) > std::abs(ours[at]) ? k : at;
    const auto largest = static_cast<double>(std::abs(ours[at]));
    ASSERT_GT(largest, 0.0) << info.name;
    for (const int64_t element : {at, static_cast<int64_t>(rng.below(static_cast<uint64_t>(info.shape.product())))})
      // 2000 roundings, as derived in decoder_test.cc.
      EXPECT_NEAR(ours[element], exact(i / 2, i % 2 == 0, element / info.shape[1], element % info.shape[1]),
                  2000 * 0x1p-24 * (largest + 1e-3))
          << info.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Specs, AdapterInSpec, testing::ValuesIn(test::all_specs()), test::spec_test_name);

TEST(Adapter, BeginsAsPeftDoes) {
  const ModelSpec spec = test::tiny_llama(AttentionKind::kCocaSlack);
  Adapter adapter = adapter_of(spec, {.rank = 4}, {"*q_proj", "*down_proj"});
  ASSERT_EQ(adapter.targets().size(), 4u);
  adapter.initialise(3);
  for (const ParamInfo& info : adapter.tensors().infos()) {
    const float* v = adapter.tensors().at(info).as<float>();
    const float largest = std::abs(
        *std::max_element(v, v + info.shape.product(), [](float a, float b) { return std::abs(a) < std::abs(b); }));
    const bool is_a = info.name.ends_with("lora_A.weight");
    const double bound = 1.0 / std::sqrt(static_cast<double>(info.shape[1]));
    EXPECT_LE(largest, is_a ? bound : 0.0) << info.name;
    EXPECT_GE(largest, is_a ? 0.8 * bound : 0.0) << info.name;
  }
  EXPECT_EQ(adapter.scale(adapter.targets()[0]), 2.0f);  // alpha 8
  const Adapter root = adapter_of(spec, {.rank = 4, .scaling = LoraSettings::Scaling::kByRootOfRank}, {"*q_proj"});
  EXPECT_EQ(root.scale(root.targets()[0]), 4.0f);
}

TEST(Adapter, DropoutIsAFunctionOfItsKey) {
  const test::TinyModel m(test::tiny_llama(AttentionKind::kCocaSlack));
  const Ids batch(m.spec.V);
  Adapter adapter = adapter_of(m.spec, {.rank = 2, .alpha = 4, .dropout = 0.5});
  fill_randomly(adapter, 0.3, 1);
  Weights bound = m.params.weights();
  adapter.bind(adapter.tensors(), bound);
  Context cx;
  std::vector<std::vector<float>> seen;
  for (const auto& [key, recompute] :
       {std::pair{1, Recompute::kNone}, {1, Recompute::kLayer}, {2, Recompute::kNone}, {0, Recompute::kNone}}) {
    if (key > 0)
      adapter.set_dropout(static_cast<uint64_t>(key), bound);
    else
      adapter.clear_dropout(bound);
    TrainingDecoder decoder(m.spec, kB, kN, {.recompute = recompute});
    TensorStore grads(adapter.tensors().infos());
    MutWeights tensors;
    tensors.layers.resize(static_cast<size_t>(m.spec.L));
    adapter.bind_gradients(grads, tensors);
    decoder.forward_backward(cx, bound, batch.ids_ref(), batch.targets_ref(), 1.0f, tensors);
    seen.emplace_back(grads.flat().as<float>(), grads.flat().as<float>() + grads.flat().numel());
  }
  EXPECT_EQ(seen[0], seen[1]);  // recomputation uses the same dropout masks
  EXPECT_NE(seen[0], seen[2]);
  EXPECT_NE(seen[0], seen[3]);
}

TEST(Adapter, WrongSettingsAreNamed) {
  const ModelSpec spec = test::tiny_neox(AttentionKind::kRope);
  const auto refused = [&](const LoraSettings& s, const std::vector<std::string>& patterns, const std::string& text) {
    EXPECT_THAT(test::error_of(ErrorKind::kInvalidArgument, [&] { adapter_of(spec, s, patterns); }), HasSubstr(text));
  };
  refused({.rank = 0}, {}, "rank of gpt_neox.layers.0.attention.query_key_value is 0");
  refused({.alpha = 0}, {}, "alpha");
  refused({.dropout = 1}, {}, "dropout is 1");
  refused({}, {"*q_proj*"}, "lora_targets: \"*q_proj*\" matches none");
}

}  // namespace
}  // namespace coca::model::adapter_test

// The decoder on a device: loss, gradients and hidden states are those of the CPU, nothing
// waits for the device within a pass, and nothing is allocated after the first.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "coca/model/decoder.h"
#include "coca/ops/cross_entropy.h"
#include "coca/tensor/transfer.h"
#include "support/first_gpu.h"
#include "support/longformer_specs.h"
#include "support/message.h"
#include "support/tiny_clex.h"
#include "support/tiny_model.h"

namespace coca::model::device_test {
namespace {

using test::gpu;
using test::TinyModel;
using ::testing::HasSubstr;

constexpr int64_t kB = 2, kN = 9;

// A pass over packed documents, or at drawn positions, or over plain windows.
struct Pass {
  std::vector<int32_t> starts = {};
  std::vector<double> positions = {};
  TrainingOptions options = {};
};

struct Result {
  std::vector<float> nll;
  ParamStore grads;  // on the host
};

// `params` in the precision of the pass; they are brought to `memory`, and back.
Result train_pass(const ModelSpec& spec, ParamStore& params, DeviceMemory* memory, const Pass& pass) {
  const std::vector<int32_t> ids = test::random_ids(kB * kN, spec.V, 5);
  std::vector<int32_t> targets = test::random_ids(kB * kN, spec.V, 6);
  targets[3] = targets[12] = ops::kIgnoreTarget;
  const auto ref = [](const std::vector<int32_t>& v) { return TensorRef(v.data(), DType::kI32, {kB, kN}, kHost); };
  Context cx(memory);
  params.move_to(memory);
  Result out{.nll = {}, .grads = ParamStore(spec, Precision::kF32, memory)};
  TrainingOptions options = pass.options;
  options.memory = memory;
  TrainingDecoder decoder(spec, kB, kN, options);
  const TensorRef nll = decoder.forward_backward(
      cx, params.weights(), ref(ids), ref(targets), 0.5f, out.grads.tensors(),
      pass.starts.empty() ? TensorRef() : ref(pass.starts), {.positions = pass.positions, .scaling_length = 40});
  const Tensor here = to_host(cx, nll);
  out.nll.assign(here.values<float>().begin(), here.values<float>().end());
  out.grads.move_to(nullptr);
  params.move_to(nullptr);
  return out;
}

// Both are within 1e-4 of the largest gradient of a tensor (decoder_test.cc derives it), so from each other twice that.
// A nll depends on 800 roundings of values up to about 20: 7e-5 on either side.
void expect_same(const Result& ours, const Result& cpu) {
  for (size_t i = 0; i < cpu.nll.size(); ++i) EXPECT_NEAR(ours.nll[i], cpu.nll[i], 1.4e-4) << "token " << i;
  for (const ParamInfo& info : cpu.grads.infos()) {
    const float *a = ours.grads.at(info).as<float>(), *b = cpu.grads.at(info).as<float>();
    float largest = 0;
    for (int64_t i = 0; i < info.shape.product(); ++i) largest = std::max(largest, std::abs(b[i]));
    ASSERT_GT(largest, 0.0f) << info.name;
    for (int64_t i = 0; i < info.shape.product(); ++i)
      ASSERT_NEAR(a[i], b[i], 2e-4f * largest) << info.name << " " << i;
  }
}

void expect_as_on_the_cpu(const ModelSpec& spec, const Pass& pass = {}) {
  TinyModel m(spec);
  const Result cpu = train_pass(spec, m.params, nullptr, pass);
  expect_same(train_pass(spec, m.params, &gpu(), pass), cpu);
}

// One of each kind: fused and grouped projections, either norm, mlp and residual, partial rotary, biases, tied
// embeddings, norms of heads, windows, ALiBi's slopes, xPos' rows of keys, half a T, dilation and global tokens.
std::vector<test::NamedSpec> device_specs() {
  std::vector<test::NamedSpec> chosen;
  for (const std::vector<test::NamedSpec>& all : {test::all_specs(), test::few_window_specs()})
    for (const test::NamedSpec& s : all)
      for (const char* name :
           {"neox_coca_slack", "llama_coca_strict", "neox_partial_rope", "llama_tied", "qwen3_coca_slack", "neox_alibi",
            "llama_xpos", "half_t_neox_coca_slack", "rope_dilated_global", "coca_slack_half_t_fused_global",
            "coca_strict_alibi_encoder_dilated_global"})
        if (s.name == name) chosen.push_back(s);
  return chosen;
}

class OnADevice : public testing::TestWithParam<test::NamedSpec> {};
INSTANTIATE_TEST_SUITE_P(Specs, OnADevice, testing::ValuesIn(device_specs()), test::spec_test_name);

TEST_P(OnADevice, LossAndGradientsAreThoseOfTheCpu) { expect_as_on_the_cpu(GetParam().spec); }

TEST_P(OnADevice, HiddenStatesAreThoseOfTheCpu) {
  TinyModel m(GetParam().spec);
  const std::vector<int32_t> ids = test::random_ids(kB * kN, m.spec.V, 5);
  const auto hidden = [&](DeviceMemory* memory) {
    Context cx(memory);
    m.params.move_to(memory);
    Decoder decoder(m.spec, m.params.weights());
    const Tensor h = to_host(cx, decoder.forward(cx, {ids.data(), DType::kI32, {kB, kN}, kHost}));
    return std::vector<float>(h.values<float>().begin(), h.values<float>().end());
  };
  const std::vector<float> cpu = hidden(nullptr), ours = hidden(&gpu());
  // 800 roundings of numbers up to about 4, on either side: sqrt(800) eps 4 = 1.4e-5 each.
  for (size_t i = 0; i < cpu.size(); ++i) ASSERT_NEAR(ours[i], cpu[i], 2.8e-5) << i;
}

TEST(DecoderOnADevice, PackedDocumentsDrawnPositionsAndRemadeLayers) {
  const ModelSpec slack = test::tiny_neox(AttentionKind::kCocaSlack), rope = test::tiny_llama(AttentionKind::kRope);
  const std::vector<int32_t> starts = {0, 0, 0, 3, 3, 3, 3, 7, 7, 0, 1, 1, 1, 1, 1, 6, 6, 6};
  expect_as_on_the_cpu(slack, {.starts = starts});
  expect_as_on_the_cpu(test::tiny_neox(AttentionKind::kAlibi), {.starts = starts});
  expect_as_on_the_cpu(rope, {.positions = {0, 1, 2, 5, 6, 11, 12, 13, 30}});
  expect_as_on_the_cpu(slack, {.options = {.recompute = Recompute::kAttention}});
  expect_as_on_the_cpu(rope, {.options = {.recompute = Recompute::kLayer}});
}

TEST(DecoderOnADevice, ClexNetworkIsTrained) {
  ModelSpec spec = test::clex_spec(test::tiny_llama(AttentionKind::kCocaSlack));
  TinyModel m = test::clex_model(spec);
  const Result cpu = train_pass(spec, m.params, nullptr, {});
  expect_same(train_pass(spec, m.params, &gpu(), {}), cpu);
}

// As far from fp32 as the CPU's bf16, which bf16_test.cc holds.
TEST(DecoderOnADevice, Bf16IsAsNearAsOnTheCpu) {
  for (const ModelSpec& spec : {test::tiny_neox(AttentionKind::kRope), test::tiny_llama(AttentionKind::kCocaSlack)}) {
    TinyModel exact(spec);
    ParamStore rounded(spec, Precision::kBF16);
    Context cx;
    copy_params(cx, exact.params, rounded);
    copy_params(cx, rounded, exact.params);
    const Pass bf16{.options = {.precision = Precision::kBF16}};
    const Result best = train_pass(spec, exact.params, nullptr, {}), cpu = train_pass(spec, rounded, nullptr, bf16),
                 ours = train_pass(spec, rounded, &gpu(), bf16);
    const auto distance = [&](const Result& r) {
      double squares = 0;
      for (int64_t i = 0; i < r.grads.flat().numel(); ++i)
        squares += std::pow(r.grads.flat().as<float>()[i] - static_cast<double>(best.grads.flat().as<float>()[i]), 2);
      return std::sqrt(squares);
    };
    EXPECT_GT(distance(ours), 0.0) << "not computed in bf16";
    EXPECT_LE(distance(ours), 2 * distance(cpu));
  }
}

TEST(DecoderOnADevice, PassesNeitherWaitNorAllocate) {
  COCA_SKIP_ON_A_CARD();
  test::FakeDevice& device = *test::simulated_gpu();
  TinyModel m(test::tiny_llama(AttentionKind::kCocaSlack));
  m.params.move_to(&device);
  Context cx(&device);
  ParamStore grads(m.spec, Precision::kF32, &device);
  TrainingDecoder decoder(m.spec, kB, kN, {.memory = &device});
  const std::vector<int32_t> ids = test::random_ids(kB * kN, m.spec.V, 5);
  const TensorRef ref(ids.data(), DType::kI32, {kB, kN}, kHost);
  const auto pass = [&] { decoder.forward_backward(cx, m.params.weights(), ref, ref, 1.0f, grads.tensors()); };
  pass();
  const size_t waits = device.waits(), blocks = device.allocations();
  pass();
  pass();
  EXPECT_EQ(device.waits(), waits);
  EXPECT_EQ(device.allocations(), blocks);
}

TEST(DecoderOnADevice, BadIdsAreNamed) {
  TinyModel m(test::tiny_neox(AttentionKind::kRope));
  m.params.move_to(&gpu());
  Context cx(&gpu());
  ParamStore grads(m.spec, Precision::kF32, &gpu());
  TrainingDecoder decoder(m.spec, 1, 3, {.memory = &gpu()});
  const std::vector<int32_t> good = {1, 2, 3}, bad = {1, 23, 3};
  const auto pass = [&](const std::vector<int32_t>& ids, const std::vector<int32_t>& targets) {
    return test::message([&] {
      decoder.forward_backward(cx, m.params.weights(), {ids.data(), DType::kI32, {1, 3}, kHost},
                               {targets.data(), DType::kI32, {1, 3}, kHost}, 1.0f, grads.tensors());
    });
  };
  EXPECT_EQ(pass(bad, good), "[embedding] ids[1] = 23 is not in 0..22");
  EXPECT_THAT(pass(good, bad), HasSubstr("targets[1] = 23 is not in 0..22"));
}

TEST(Parameters, AreMovedWithTheirValues) {
  TinyModel m(test::tiny_llama(AttentionKind::kRope));
  const std::vector<float> before(m.params.flat().as<float>(), m.params.flat().as<float>() + m.params.flat().numel());
  m.params.move_to(&gpu());
  EXPECT_EQ(m.params.memory(), &gpu());
  EXPECT_EQ(m.params.weights().layers[1].up_w.device, gpu().device());
  m.params.move_to(nullptr);
  EXPECT_TRUE(m.params.weights().embed.device.is_cpu());
  EXPECT_TRUE(std::equal(before.begin(), before.end(), m.params.flat().as<float>()));
}

}  // namespace
}  // namespace coca::model::device_test

// Generation on a device: the tokens are those of the CPU.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "coca/infer/cached_decoder.h"
#include "coca/infer/generate.h"
#include "support/first_gpu.h"
#include "support/longformer_specs.h"
#include "support/tiny_clex.h"
#include "support/tiny_model.h"

namespace coca::infer::device_test {
namespace {

using test::AttentionKind;
using test::gpu;
using test::TinyModel;

model::ModelSpec patterned(AttentionKind kind, model::AttentionPattern pattern) {
  model::ModelSpec s = test::tiny_llama(kind);
  s.pattern = pattern;
  return s;
}

// Full caches and each pattern: dynamic NTK turns keys anew at every step; LM-Infinite also picks keys of the middle.
std::vector<test::NamedSpec> device_specs() {
  std::vector<test::NamedSpec> all = {
      {"neox_coca_slack", test::tiny_neox(AttentionKind::kCocaSlack)},
      {"llama_coca_strict", test::tiny_llama(AttentionKind::kCocaStrict)},
      {"neox_alibi", test::tiny_neox(AttentionKind::kAlibi)},
      {"clex_rope", test::clex_spec(test::tiny_llama(AttentionKind::kRope))},
      {"streaming_llm",
       patterned(AttentionKind::kCocaSlack, {.type = model::Pattern::kStreamingLlm, .window = 9, .sinks = 3})},
      {"self_extend", patterned(AttentionKind::kRope, {.type = model::Pattern::kSelfExtend, .window = 9, .group = 4})},
      {"lm_infinite", patterned(AttentionKind::kRope, {.type = model::Pattern::kLmInfinite,
                                                       .window = 9,
                                                       .sinks = 3,
                                                       .distance = 12,
                                                       .middle_top_k = 3,
                                                       .middle_from_layer = 1})}};
  all[1].spec.rope_scaling = {.type = model::Scaling::kDynamic, .factor = 2};
  for (const test::NamedSpec& s : test::longformer_specs())
    if (s.spec.global_tokens > 0 && s.spec.attention == AttentionKind::kCocaSlack) {
      all.push_back(s);
      break;
    }
  return all;
}

class GenerateOnADevice : public testing::TestWithParam<test::NamedSpec> {};
INSTANTIATE_TEST_SUITE_P(Specs, GenerateOnADevice, testing::ValuesIn(device_specs()), test::spec_test_name);

// Greedy choices differ only if two logits are within rounding of each other, which these models' are not.
TEST_P(GenerateOnADevice, GreedyTokensAreThoseOfTheCpu) {
  TinyModel m(GetParam().spec);
  const Request request{
      .prompt = test::random_ids(14, m.spec.V, 3), .max_new_tokens = 8, .sampling = {.temperature = 0}};
  const auto ids = [&](DeviceMemory* memory) {
    m.params.move_to(memory);
    Context cx(memory);
    BatchDecoder decoder(m.spec, m.params.weights());
    EXPECT_EQ(decoder.pool().device(), memory);
    return generate(cx, decoder, request, {.prefill_tokens = 6}).ids;
  };
  const std::vector<int32_t> cpu = ids(nullptr);
  EXPECT_EQ(ids(&gpu()), cpu);
}

// Several sequences, of which one branches, in bf16 and with a cache of int8.
TEST(BatchOnADevice, LogitsAreThoseOfTheCpu) {
  const model::ModelSpec spec = test::tiny_llama(AttentionKind::kCocaSlack);
  TinyModel m(spec);
  for (const KvType type : {KvType::kF32, KvType::kBF16, KvType::kInt8}) {
    const auto logits = [&](DeviceMemory* memory) {
      m.params.move_to(memory);
      Context cx(memory);
      BatchDecoder decoder(spec, m.params.weights(), {.cache = type});
      Sequence a = decoder.sequence(), b = decoder.sequence();
      const std::vector<int32_t> ids = test::random_ids(12, spec.V, 4);
      const std::span<const int32_t> all(ids);
      std::vector<Piece> pieces = {{.sequence = &a, .ids = all.first(5)}, {.sequence = &b, .ids = all.subspan(5, 3)}};
      decoder.append(cx, pieces);
      Sequence fork = a.fork();
      pieces = {{.sequence = &fork, .ids = all.subspan(8, 1)},
                {.sequence = &a, .ids = all.subspan(9, 2)},
                {.sequence = &b, .ids = all.last(1)}};
      decoder.append(cx, pieces);
      const std::vector<int64_t> wanted = {0, 2};
      const TensorRef last = decoder.last_logits(cx, wanted);
      EXPECT_TRUE(last.device.is_cpu());
      return std::vector<float>(last.as<float>(), last.as<float>() + last.numel());
    };
    const std::vector<float> cpu = logits(nullptr), ours = logits(&gpu());
    // 800 roundings of logits up to about 20 on either side (sqrt(800) eps 20 = 7e-5); the same numbers in the cache,
    // but for those that lie at the edge of a step of int8 or bf16: one step of a few hundred numbers.
    const float step = type == KvType::kInt8 ? 20.0f / 127 : type == KvType::kBF16 ? 20.0f / 256 : 0.0f;
    ASSERT_EQ(ours.size(), cpu.size());
    for (size_t i = 0; i < cpu.size(); ++i) EXPECT_NEAR(ours[i], cpu[i], 1.4e-4f + 0.05f * step) << i;
  }
}

// A token's step waits once, for its logits, and allocates nothing.
TEST(BatchOnADevice, AStepWaitsOnceAndAllocatesNothing) {
  COCA_SKIP_ON_A_CARD();
  TinyModel m(test::tiny_neox(AttentionKind::kCocaSlack));
  m.params.move_to(&gpu());
  Context cx(&gpu());
  CachedDecoder decoder(m.spec, m.params.weights(), 2);
  const std::vector<int32_t> ids = test::random_ids(6, m.spec.V, 4);
  const auto step = [&](int64_t n) {
    decoder.append(cx, {ids.data(), DType::kI32, {2, n}, kHost});
    decoder.last_logits(cx);
  };
  step(3);
  step(1);
  const test::FakeDevice& counts = *test::simulated_gpu();
  const size_t waits = counts.waits(), blocks = counts.allocations();
  step(1);
  step(1);
  EXPECT_EQ(counts.waits() - waits, 2u);
  EXPECT_EQ(counts.allocations(), blocks);
}

}  // namespace
}  // namespace coca::infer::device_test

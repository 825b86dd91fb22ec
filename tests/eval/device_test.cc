// Evaluation on a device: the figures are those of the CPU.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "coca/eval/mlm.h"
#include "coca/eval/passkey.h"
#include "coca/eval/perplexity.h"
#include "coca/eval/stream.h"
#include "coca/model/decoder.h"
#include "coca/ops/cross_entropy.h"
#include "coca/text/tokenizer.h"
#include "support/first_gpu.h"
#include "support/tiny_model.h"

namespace coca::eval::device_test {
namespace {

using test::AttentionKind;
using test::gpu;
using test::TinyModel;

// figure(cx) on the CPU and on the GPU, with the model there.
template <typename Figure>
auto both(TinyModel& m, const Figure& figure) {
  const auto on = [&](DeviceMemory* memory) {
    m.params.move_to(memory);
    Context cx(memory);
    return figure(cx);
  };
  auto cpu = on(nullptr);
  return std::pair(std::move(cpu), on(&gpu()));
}

// A nll depends on 800 roundings of logits up to about 20: sqrt(800) eps 20 = 7e-5 on either side.
constexpr double kNear = 1.4e-4;

TEST(EvalOnADevice, PerplexityIsThatOfTheCpu) {
  for (const model::ModelSpec& spec :
       {test::tiny_neox(AttentionKind::kCocaSlack), test::tiny_llama(AttentionKind::kRope)}) {
    TinyModel m(spec);
    const std::vector<std::vector<int32_t>> documents = {test::random_ids(19, spec.V, 50),
                                                         test::random_ids(8, spec.V, 51)};
    const auto [cpu, ours] = both(m, [&](Context& cx) {
      return perplexity(cx, spec, m.params.weights(), documents,
                        {.protocol = {.lengths = {8}, .stride = 4, .bos = Bos::kNever}})
          .front();
    });
    EXPECT_EQ(ours.scored_tokens, cpu.scored_tokens);
    EXPECT_NEAR(ours.nll, cpu.nll, kNear);
  }
}

// In chunks of a sequence, whose keys stay on the device.
TEST(EvalOnADevice, LongWindowsComeInChunks) {
  TinyModel m(test::tiny_llama(AttentionKind::kCocaSlack));
  const std::vector<int32_t> ids = test::random_ids(150, m.spec.V, 5);
  const auto [cpu, ours] = both(m, [&](Context& cx) {
    model::Decoder decoder(m.spec, m.params.weights(), {.chunk_tokens = 64});
    Tensor nll({150});
    ops::lm_loss_forward(cx, {.x = decoder.forward(cx, {ids.data(), DType::kI32, {1, 150}, kHost}),
                              .w = m.params.weights().head,
                              .targets = {ids.data(), DType::kI32, {150}, kHost},
                              .nll = nll});
    return std::vector<float>(nll.values<float>().begin(), nll.values<float>().end());
  });
  for (size_t i = 0; i < ids.size(); ++i) ASSERT_NEAR(ours[i], cpu[i], kNear) << i;
}

TEST(EvalOnADevice, StreamAndMaskedPerplexityAreThoseOfTheCpu) {
  model::ModelSpec spec = test::tiny_llama(AttentionKind::kCocaStrict);
  spec.pattern = {.type = model::Pattern::kStreamingLlm, .window = 7, .sinks = 2};
  const std::vector<std::vector<int32_t>> documents = {test::random_ids(20, 20, 1)};
  TinyModel m(spec);
  const auto [cpu, ours] = both(m, [&](Context& cx) {
    return stream_perplexity(cx, spec, m.params.weights(), documents, {.chunk = 5, .interval = 10}).points.back().nll;
  });
  EXPECT_NEAR(ours, cpu, kNear);

  model::ModelSpec both_ways = test::tiny_llama(AttentionKind::kCocaSlack);
  both_ways.direction = model::Direction::kBidirectional;
  both_ways.layer_window = {3, 4};
  both_ways.global_tokens = 2;
  both_ways.mask_id = 22;
  TinyModel encoder(both_ways);
  const auto [masked, masked_ours] = both(encoder, [&](Context& cx) {
    return masked_perplexity(cx, both_ways, encoder.params.weights(), documents, 20, {.lengths = {10}, .seed = 5})
        .front()
        .nll;
  });
  EXPECT_NEAR(masked_ours, masked, kNear);
}

TEST(EvalOnADevice, PasskeysAreChosenAsOnTheCpu) {
  model::ModelSpec spec = test::tiny_llama(AttentionKind::kCocaSlack);
  spec.V = 264;
  spec.bos_id = 256;
  TinyModel m(spec);
  const auto [cpu, ours] = both(m, [&](Context& cx) {
    return passkey(cx, spec, m.params.weights(), *text::make_byte_tokenizer(),
                   {.protocol = {.lengths = {64},
                                 .wording = data::PasskeyWording::kCompact,
                                 .depths = {0.5},
                                 .keys = data::keys_of_digits(2),
                                 .trials = 2}});
  });
  ASSERT_EQ(ours.totals.size(), 1u);
  EXPECT_EQ(ours.totals[0].score.correct, cpu.totals[0].score.correct);
  EXPECT_EQ(ours.totals[0].score.digit_accuracy, cpu.totals[0].score.digit_accuracy);
}

}  // namespace
}  // namespace coca::eval::device_test

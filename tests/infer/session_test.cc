// Sessions: a prompt in pieces gives what it gives at once, and a session may end between any two steps.
// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coca/ops/linear.h"
#include "support/message.h"
#include "support/tiny_model.h"

namespace coca::infer::session_test {
namespace {

using test::message;
using test::TinyModel;

std::vector<float> last_logits(CachedDecoder& decoder, Context& cx) {
  const TensorRef logits = decoder.last_logits(cx);
  return {logits.as<float>(), logits.as<float>() + logits.numel()};
}

// Sums over keys, and products of another number of rows, in another order: both are within a few roundings of sums of
// at most 64 terms of size 1, and three layers add up to no more than ten times that.
constexpr float kRounding = 64 * 10 * 1.2e-7f;

class Prefill : public testing::TestWithParam<test::NamedSpec> {};
INSTANTIATE_TEST_SUITE_P(Specs, Prefill, testing::ValuesIn(test::all_specs()), test::spec_test_name);

TEST_P(Prefill, PiecesGiveWhatTheWholePromptGives) {
  for (const bool dynamic : {false, true}) {
    TinyModel m(GetParam().spec);
    if (dynamic && !model::uses_rotary(m.spec.attention)) continue;
    if (dynamic) m.spec.rope_scaling = {model::Scaling::kDynamic, 2.0};
    constexpr int64_t B = 2, N = 19;  // beyond the 8 tokens of max_position: another base at every length
    const std::vector<int32_t> ids = test::random_ids(B * N, m.spec.V, 5), next = test::random_ids(B, m.spec.V, 6);
    Context cx;
    std::vector<float> expected, expected_next;
    for (const int64_t piece : {N, int64_t{1}, int64_t{4}, int64_t{18}, int64_t{1000}}) {
      SCOPED_TRACE(piece);
      CachedDecoder decoder(m.spec, m.params.weights(), B);
      decoder.prefill(cx, {ids.data(), DType::kI32, {B, N}, kHost}, piece);
      EXPECT_EQ(decoder.length(), N);
      const std::vector<float> logits = last_logits(decoder, cx);
      decoder.append(cx, {next.data(), DType::kI32, {B, 1}, kHost});
      const std::vector<float> then = last_logits(decoder, cx);
      if (piece == N) {
        expected = logits;
        expected_next = then;
      }
      EXPECT_THAT(logits, testing::Pointwise(testing::FloatNear(kRounding), expected));
      EXPECT_THAT(then, testing::Pointwise(testing::FloatNear(kRounding), expected_next));
    }
  }
}

class OneSession : public testing::Test {
 protected:
  TinyModel m{test::tiny_llama(test::AttentionKind::kCocaSlack)};
  Context cx;
  Request request{.prompt = {3, 1, 4, 1, 5, 9, 2}, .max_new_tokens = 5, .sampling = {.temperature = 0}};
};

TEST_F(OneSession, AStepIsAPieceOrAToken) {
  Session s(m.spec, m.params.weights(), request, {.prefill_tokens = 3});
  for (const int64_t done : {3, 6, 7}) {
    EXPECT_EQ(s.step(cx), std::nullopt);
    EXPECT_EQ(s.prompt_tokens_done(), done);
    EXPECT_FALSE(s.finished());
  }
  for (int64_t n = 1; n <= 5; ++n) {
    const std::optional<int32_t> id = s.step(cx);
    ASSERT_TRUE(id.has_value());
    EXPECT_EQ(s.ids().size(), static_cast<size_t>(n));
    EXPECT_EQ(s.ids().back(), *id);
  }
  EXPECT_TRUE(s.finished());
  EXPECT_EQ(s.finish(), Finish::kLength);
  EXPECT_EQ(s.step(cx), std::nullopt);
  EXPECT_EQ(s.ids().size(), 5u);
}

TEST_F(OneSession, MayBeCancelledInsideThePromptAndBehindIt) {
  Session inside(m.spec, m.params.weights(), request, {.prefill_tokens = 3});
  inside.step(cx);
  inside.cancel();
  EXPECT_EQ(inside.step(cx), std::nullopt);
  EXPECT_EQ(inside.prompt_tokens_done(), 3);
  EXPECT_EQ(inside.finish(), Finish::kCancelled);
  Session behind(m.spec, m.params.weights(), request);
  behind.step(cx);
  behind.step(cx);
  behind.cancel();
  EXPECT_EQ(behind.step(cx), std::nullopt);
  EXPECT_EQ(behind.ids().size(), 1u);
  EXPECT_TRUE(behind.finished());
}

TEST_F(OneSession, TwoAtATimeDoNotDisturbEachOther) {
  Session alone(m.spec, m.params.weights(), request);
  while (!alone.finished()) alone.step(cx);
  Session first(m.spec, m.params.weights(), request, {.prefill_tokens = 7}),
      second(m.spec, m.params.weights(), request, {.prefill_tokens = 7});
  while (!first.finished() || !second.finished()) {
    first.step(cx);
    second.step(cx);
  }
  EXPECT_EQ(first.ids(), alone.ids());
  EXPECT_EQ(second.ids(), alone.ids());
}

TEST_F(OneSession, RefusesWhatMakesNoSense) {
  EXPECT_THAT(message([&] { Session(m.spec, m.params.weights(), request, {.prefill_tokens = 0}); }),
              testing::HasSubstr("prefill-tokens 0"));
  request.prompt.clear();
  EXPECT_THAT(message([&] { Session(m.spec, m.params.weights(), request); }), testing::HasSubstr("empty"));
}

}  // namespace
}  // namespace coca::infer::session_test

// Sessions: a prompt in pieces gives the same result as in one piece, and a session may end between any two steps.
// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <memory>

#include "coca/infer/cached_decoder.h"
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

// Sums over keys, and products with a different number of rows, may be summed in another order. Both results are within
// a few roundings of sums of at most 64 terms of size 1, and three layers increase that at most tenfold.
constexpr float kRounding = 64 * 10 * 1.2e-7f;

class Prefill : public testing::TestWithParam<test::NamedSpec> {};
INSTANTIATE_TEST_SUITE_P(Specs, Prefill, testing::ValuesIn(test::all_specs()), test::spec_test_name);

TEST_P(Prefill, PiecesEqualTheWholePrompt) {
  for (const bool dynamic : {false, true}) {
    TinyModel m(GetParam().spec);
    if (dynamic && !model::uses_rotary(m.spec.attention)) continue;
    if (dynamic) m.spec.rope_scaling = {model::Scaling::kDynamic, 2.0};
    constexpr int64_t B = 2, N = 19;  // exceeds max_position (8), so that every length has its own base
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
  BatchDecoder decoder{m.spec, m.params.weights()};
  Context cx;
  Request request{.prompt = {3, 1, 4, 1, 5, 9, 2}, .max_new_tokens = 5, .sampling = {.temperature = 0}};
};

TEST_F(OneSession, AStepIsAPieceOrAToken) {
  Session s(decoder, request, {.prefill_tokens = 3});
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

TEST_F(OneSession, MayBeCancelledInsideAndAfterThePrompt) {
  Session inside(decoder, request, {.prefill_tokens = 3});
  inside.step(cx);
  inside.cancel();
  EXPECT_EQ(inside.step(cx), std::nullopt);
  EXPECT_EQ(inside.prompt_tokens_done(), 3);
  EXPECT_EQ(inside.finish(), Finish::kCancelled);
  Session behind(decoder, request);
  behind.step(cx);
  behind.step(cx);
  behind.cancel();
  EXPECT_EQ(behind.step(cx), std::nullopt);
  EXPECT_EQ(behind.ids().size(), 1u);
  EXPECT_TRUE(behind.finished());
}

TEST_F(OneSession, TwoAtATimeDoNotDisturbEachOther) {
  Session alone(decoder, request);
  while (!alone.finished()) alone.step(cx);
  Session first(decoder, request, {.prefill_tokens = 7}), second(decoder, request, {.prefill_tokens = 7});
  while (!first.finished() || !second.finished()) {
    first.step(cx);
    second.step(cx);
  }
  EXPECT_EQ(first.ids(), alone.ids());
  EXPECT_EQ(second.ids(), alone.ids());
}

// Sessions with different prompts, lengths and pieces that start and end at different times. Each generates the text
// that it generates alone.
TEST_F(OneSession, SessionsInOneStepAreIndependent) {
  std::vector<Request> requests;
  for (uint64_t i = 0; i < 6; ++i)
    requests.push_back({.prompt = test::random_ids(3 + 4 * static_cast<int64_t>(i), m.spec.V, i),
                        .max_new_tokens = static_cast<int64_t>(3 * i),
                        .sampling = {.temperature = i % 2 == 0 ? 0.0f : 1.0f},
                        .seed = i});
  std::vector<std::unique_ptr<Session>> sessions;
  std::vector<Session*> running;
  for (size_t i = 0; i < requests.size(); ++i) {
    sessions.push_back(
        std::make_unique<Session>(decoder, requests[i], SessionOptions{.prefill_tokens = static_cast<int64_t>(2 + i)}));
    running.push_back(sessions.back().get());
    Session::step(cx, running);
  }
  for (int steps = 0; !std::ranges::all_of(running, &Session::finished); ++steps) {
    ASSERT_LT(steps, 100);
    Session::step(cx, running);
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    Session alone(decoder, requests[i]);
    while (!alone.finished()) alone.step(cx);
    EXPECT_EQ(sessions[i]->ids(), alone.ids()) << i;
    EXPECT_EQ(sessions[i]->finish(), Finish::kLength);
  }
}

TEST_F(OneSession, ContinuesAStartedSequence) {
  Session whole(decoder, request);
  while (!whole.finished()) whole.step(cx);
  Sequence begun = decoder.sequence();
  const Piece piece{.sequence = &begun, .ids = std::span(request.prompt).first(4)};
  decoder.append(cx, {&piece, 1});
  Session rest(decoder, request, begun.fork());
  EXPECT_EQ(rest.prompt_tokens_done(), 4);
  while (!rest.finished()) rest.step(cx);
  EXPECT_EQ(rest.ids(), whole.ids());
  const Piece all{.sequence = &begun, .ids = std::span(request.prompt).subspan(4)};
  decoder.append(cx, {&all, 1});
  EXPECT_THAT(message([&] { Session(decoder, request, begun.fork()); }),
              testing::HasSubstr("leave at least its last token"));
}

// One token's embedding is NaN. The session with that token in its prompt fails; the other ends as it does alone.
TEST_F(OneSession, AFailureStaysWithItsSession) {
  Session alone(decoder, request);
  while (!alone.finished()) alone.step(cx);
  int32_t unused = 0;
  const auto has = [&](const std::vector<int32_t>& ids) { return std::ranges::find(ids, unused) != ids.end(); };
  while (has(request.prompt) || has(alone.ids())) ++unused;
  m.params.tensors().embed.as<float>()[unused * m.spec.C] = std::numeric_limits<float>::quiet_NaN();
  Request bad = request;
  bad.prompt = {3, unused};
  Session healthy(decoder, request), broken(decoder, bad);
  Session* const both[] = {&broken, &healthy};
  for (int i = 0; i < 10; ++i) Session::step(cx, both);
  EXPECT_EQ(broken.finish(), Finish::kFailed);
  EXPECT_TRUE(broken.error());
  EXPECT_EQ(healthy.ids(), alone.ids());
  Session again(decoder, bad);
  again.step(cx);
  EXPECT_THROW(again.step(cx), Error);
}

TEST_F(OneSession, RefusesInvalidRequests) {
  EXPECT_THAT(message([&] { Session(decoder, request, {.prefill_tokens = 0}); }),
              testing::HasSubstr("prefill-tokens 0"));
  request.prompt.clear();
  EXPECT_THAT(message([&] { Session(decoder, request); }), testing::HasSubstr("empty"));
}

}  // namespace
}  // namespace coca::infer::session_test

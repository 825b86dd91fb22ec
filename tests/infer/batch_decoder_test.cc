// Sequences of different lengths in one step give the same as each alone, for every kind of model. Forks share pages
// until they diverge.
// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/batch_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/longformer_specs.h"
#include "support/numerics.h"
#include "support/tiny_model.h"

namespace coca::infer::batch_decoder_test {
namespace {

using model::Pattern;
using test::AttentionKind;
using test::TinyModel;

// Products with a different number of rows may sum in another order. Both results are within a few roundings of sums of
// at most 64 terms of size 1, and three layers increase that at most tenfold (as in session_test.cc).
constexpr float kRounding = 64 * 10 * 1.2e-7f;

std::vector<test::NamedSpec> specs() {
  std::vector<test::NamedSpec> all = test::all_specs();
  for (const test::NamedSpec& s : test::longformer_specs()) all.push_back({"longformer_" + s.name, s.spec});
  for (const AttentionKind kind : {AttentionKind::kRope, AttentionKind::kCocaSlack, AttentionKind::kAlibi}) {
    const std::string name = kind == AttentionKind::kRope ? "rope" : kind == AttentionKind::kAlibi ? "alibi" : "slack";
    model::ModelSpec s = test::tiny_llama(kind);
    s.pattern = {.type = Pattern::kStreamingLlm, .window = 5, .sinks = 2};
    all.push_back({"streaming_" + name, s});
    s.pattern = {.type = Pattern::kLmInfinite,
                 .window = 4,
                 .sinks = 2,
                 .distance = 6,
                 .middle_top_k = 2,
                 .middle_from_layer = 0};
    all.push_back({"lm_infinite_" + name, s});
    if (kind == AttentionKind::kAlibi) continue;
    s.pattern = {};
    s.rope_scaling = {.type = model::Scaling::kDynamic, .factor = 2};
    all.push_back({"dynamic_" + name, s});
  }
  return all;
}

class Batch : public testing::TestWithParam<test::NamedSpec> {
 protected:
  TinyModel m{GetParam().spec};
  Context cx;
  std::vector<std::vector<int32_t>> texts = {test::random_ids(20, m.spec.V, 1), test::random_ids(20, m.spec.V, 2),
                                             test::random_ids(20, m.spec.V, 3)};

  std::span<const int32_t> next(const Sequence& s, size_t text, int64_t count) const {
    return std::span(texts[text]).subspan(static_cast<size_t>(s.length()), static_cast<size_t>(count));
  }
  std::vector<float> logits(BatchDecoder& decoder, int64_t piece) {
    const int64_t wanted[] = {piece};
    const TensorRef x = decoder.last_logits(cx, wanted);
    return {x.as<float>(), x.as<float>() + m.spec.V};
  }
  // The logits after `count` more tokens of a text, run alone.
  std::vector<float> alone(BatchDecoder& decoder, Sequence& s, size_t text, int64_t count) {
    const Piece piece{.sequence = &s, .ids = next(s, text, count)};
    decoder.append(cx, {&piece, 1});
    return logits(decoder, 0);
  }
};
INSTANTIATE_TEST_SUITE_P(Specs, Batch, testing::ValuesIn(specs()), test::spec_test_name);

TEST_P(Batch, SequencesGiveTheSameResultAsAlone) {
  BatchDecoder together(m.spec, m.params.weights()), apart(m.spec, m.params.weights());
  std::vector<Sequence> a, b;
  for (size_t i = 0; i < texts.size(); ++i) {
    a.push_back(together.sequence());
    b.push_back(apart.sequence());
  }
  struct Part {
    size_t text;
    int64_t count;
  };
  // Mixes prompts with single tokens. Sequences join, pause and change order.
  const std::vector<Part> steps[] = {
      {{0, 5}, {1, 1}}, {{1, 7}, {0, 1}, {2, 3}}, {{2, 1}, {0, 1}}, {{1, 2}}, {{2, 9}, {1, 1}, {0, 4}}};
  for (const std::vector<Part>& step : steps) {
    std::vector<Piece> pieces;
    for (const Part& part : step)
      pieces.push_back({.sequence = &a[part.text], .ids = next(a[part.text], part.text, part.count)});
    together.append(cx, pieces);
    for (size_t i = 0; i < step.size(); ++i) {
      const auto [text, count] = step[i];
      const std::vector<float> expected = alone(apart, b[text], text, count);
      EXPECT_THAT(logits(together, static_cast<int64_t>(i)),
                  testing::Pointwise(testing::FloatNear(kRounding), expected))
          << "text " << text << " after " << b[text].length();
      EXPECT_EQ(a[text].length(), b[text].length());
    }
  }
}

// The common beginning is processed once. The continuations match those of two separate texts.
TEST_P(Batch, ForksAreIndependent) {
  BatchDecoder decoder(m.spec, m.params.weights());
  std::copy_n(texts[0].begin(), 6, texts[1].begin());
  Sequence one = decoder.sequence();
  alone(decoder, one, 0, 6);
  Sequence two = one.fork();
  EXPECT_EQ(two.length(), 6);
  EXPECT_EQ(decoder.pool().in_use(), 1);
  Sequence plain[] = {decoder.sequence(), decoder.sequence()};
  for (size_t i = 0; i < 2; ++i) alone(decoder, plain[i], i, 6);
  for (const int64_t count : {1, 3}) {
    const std::vector<float> expected[] = {alone(decoder, plain[0], 0, count), alone(decoder, plain[1], 1, count)};
    const Piece pieces[] = {{.sequence = &one, .ids = next(one, 0, count)},
                            {.sequence = &two, .ids = next(two, 1, count)}};
    decoder.append(cx, pieces);
    for (int64_t i = 0; i < 2; ++i)
      EXPECT_THAT(logits(decoder, i), testing::Pointwise(testing::FloatNear(kRounding), expected[i])) << i;
  }
  EXPECT_EQ(decoder.pool().in_use(), 4);
}

// Full pages are never copied, and all pages return to the pool when their sequences end.
TEST(BatchDecoder, FullPagesAreShared) {
  const TinyModel m(test::tiny_llama(AttentionKind::kCocaSlack));
  BatchDecoder decoder(m.spec, m.params.weights());
  Context cx;
  const std::vector<int32_t> ids = test::random_ids(2 * kKvPage + 3, m.spec.V, 4);
  {
    Sequence begun = decoder.sequence();
    const Piece prompt{.sequence = &begun, .ids = ids};
    decoder.append(cx, {&prompt, 1});
    EXPECT_EQ(decoder.pool().in_use(), 3);
    std::vector<Sequence> forks;
    std::vector<Piece> pieces;
    for (int i = 0; i < 5; ++i) forks.push_back(begun.fork());
    for (Sequence& s : forks) pieces.push_back({.sequence = &s, .ids = std::span(ids).first(2)});
    decoder.append(cx, pieces);
    EXPECT_EQ(decoder.pool().in_use(), 3 + 5);
  }
  EXPECT_EQ(decoder.pool().in_use(), 0);
}

TEST(BatchDecoder, AFailedStepChangesNoSequence) {
  const TinyModel m(test::tiny_llama(AttentionKind::kCocaSlack));
  BatchDecoder decoder(m.spec, m.params.weights(), {.most_pages = 2});
  Context cx;
  const std::vector<int32_t> ids = test::random_ids(kKvPage, m.spec.V, 4);
  Sequence a = decoder.sequence(), b = decoder.sequence();
  const Piece first[] = {{.sequence = &a, .ids = ids}, {.sequence = &b, .ids = ids}};
  decoder.append(cx, first);
  const Piece more[] = {{.sequence = &a, .ids = std::span(ids).first(1)},
                        {.sequence = &b, .ids = std::span(ids).first(1)}};
  EXPECT_THAT([&] { decoder.append(cx, more); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("pages of the cache")));
  EXPECT_EQ(a.length(), kKvPage);
  EXPECT_EQ(b.length(), kKvPage);
  b.truncate(0);
  decoder.append(cx, {more, 1});
  EXPECT_EQ(a.length(), kKvPage + 1);
}

TEST(BatchDecoder, MisuseIsNamed) {
  const TinyModel m(test::tiny_llama(AttentionKind::kRope));
  BatchDecoder decoder(m.spec, m.params.weights());
  Context cx;
  Sequence s = decoder.sequence();
  const int32_t ids[] = {1, 2};
  const auto message = [](const char* text) { return testing::ThrowsMessage<Error>(testing::HasSubstr(text)); };
  EXPECT_THAT([&] { decoder.append(cx, {}); }, message("nothing to append"));
  const Piece empty{.sequence = &s, .ids = {}};
  EXPECT_THAT([&] { decoder.append(cx, {&empty, 1}); }, message("piece 0 has no ids"));
  const Piece twice[] = {{.sequence = &s, .ids = ids}, {.sequence = &s, .ids = ids}};
  EXPECT_THAT([&] { decoder.append(cx, twice); }, message("pieces 0 and 1 belong to the same sequence"));
  const int64_t wanted[] = {0};
  EXPECT_THAT([&] { decoder.last_logits(cx, wanted); }, message("piece 0 does not exist"));
  EXPECT_THAT([&] { decoder.sequence({.dynamic_base = DynamicBase::kRequest}); }, message("planned length"));
}

}  // namespace
}  // namespace coca::infer::batch_decoder_test

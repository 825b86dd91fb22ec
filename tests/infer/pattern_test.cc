// Patterns compared with the reference, which places every query and key as in the papers: whole sequences, chunks, and
// pieces through the cache, which drops tokens that no later query can see.
// SPDX-License-Identifier: Apache-2.0
#include "coca/model/pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coca/infer/cached_decoder.h"
#include "coca/model/decoder.h"
#include "coca/ops/linear.h"
#include "support/numerics.h"
#include "support/reference_decoder.h"
#include "support/tiny_model.h"

namespace coca::infer::pattern_test {
namespace {

using model::AttentionKind;
using model::AttentionPattern;
using model::ModelSpec;
using model::Pattern;
using model::SlackFrame;
using test::TinyModel;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr int64_t kN = 40;
constexpr test::ErrorRule kRule{.terms = 800};  // as cached_decoder_test.cc

// Windows and groups so small that 40 tokens reach every branch.
AttentionPattern small(Pattern type) {
  AttentionPattern p{.type = type, .window = 9};
  if (p.forgets()) p.sinks = 3;
  if (type == Pattern::kLmInfinite) p.distance = 12;
  if (type == Pattern::kSelfExtend) p.group = 4;
  return p;
}

struct Named {
  std::string name;
  ModelSpec spec;
  friend void PrintTo(const Named& n, std::ostream* out) { *out << n.name; }
};

std::string identifier(std::string text) {
  for (char& c : text) c = c == '-' ? '_' : c;
  return text;
}

// Every attention kind with every pattern that it allows, and some with dynamic NTK or YaRN too.
std::vector<Named> patterned_specs() {
  std::vector<Named> all;
  const auto add = [&](std::string name, ModelSpec s) {
    try {
      validate(s);
    } catch (const Error&) {
      return;
    }
    all.push_back({identifier(std::move(name)), std::move(s)});
  };
  for (const auto& pattern : EnumTraits<Pattern>::names()) {
    if (pattern.value == Pattern::kFull) continue;
    const std::string suffix = "_" + std::string(pattern.name);
    if (pattern.value == Pattern::kLmInfinite)
      for (const AttentionKind kind : test::attention_kinds()) {  // three middle keys, in the second layer only
        ModelSpec s = test::tiny_llama(kind);
        s.pattern = small(pattern.value);
        s.pattern.middle_top_k = 3;
        s.pattern.middle_from_layer = 1;
        add(std::string(enum_name(kind)) + "_middle" + suffix, s);
        if (kind != AttentionKind::kCocaSlack) continue;
        s.pattern.frame = SlackFrame::kAbsolute;
        s.pattern.sinks = 0;
        s.pattern.middle_from_layer = 0;
        s.rope_scaling = test::tiny_scaling(model::Scaling::kYarn, s.R / 2);
        add("coca-slack_middle_alone" + suffix, s);
      }
    for (const AttentionKind kind : test::attention_kinds()) {
      ModelSpec s = test::tiny_llama(kind);
      s.pattern = small(pattern.value);
      add(std::string(enum_name(kind)) + suffix, s);
      if (kind != AttentionKind::kCocaSlack && kind != AttentionKind::kRope) continue;
      s.rope_scaling = {.type = model::Scaling::kDynamic, .factor = 2};
      add(std::string(enum_name(kind)) + "_dynamic" + suffix, s);
      s.rope_scaling = test::tiny_scaling(model::Scaling::kYarn, s.R / 2);
      add(std::string(enum_name(kind)) + "_yarn" + suffix, s);
      s.pattern.frame = SlackFrame::kAbsolute;
      if (kind == AttentionKind::kCocaSlack) add("coca-slack_absolute" + suffix, s);
      ModelSpec partial = test::tiny_neox(kind);
      partial.R = 4;
      partial.pattern = small(pattern.value);
      add("partial_" + std::string(enum_name(kind)) + suffix, partial);
    }
  }
  return all;
}

std::vector<float> logits_of(Context& cx, const TinyModel& m, TensorRef hidden) {
  const int64_t rows = hidden.numel() / m.spec.C;
  Tensor logits({rows, m.spec.V});
  ops::linear_forward(cx, {.x = hidden.reshape({rows, m.spec.C}), .w = m.params.weights().head, .y = logits});
  return {logits.values<float>().begin(), logits.values<float>().end()};
}

class Patterned : public testing::TestWithParam<Named> {
 protected:
  TinyModel m{GetParam().spec};
  Context cx;
  std::vector<int32_t> ids = test::random_ids(kN, m.spec.V, 5);
  test::ReferenceDecoder<double> exact{m.spec, m.params};
  test::ReferenceDecoder<float> naive{m.spec, m.params};

  void expect_logits(std::span<const float> ours, const char* what) {
    const std::vector<double> right = exact.run(ids, kN);
    const std::vector<float> rough = test::farthest_naive(right, [&](int64_t first_term) {
      naive.set_first_term(first_term);
      return naive.run(ids, kN);
    });
    test::expect_close(ours, right, rough, kRule, what);
  }
};
INSTANTIATE_TEST_SUITE_P(Specs, Patterned, testing::ValuesIn(patterned_specs()),
                         [](const auto& spec) { return spec.param.name; });

TEST_P(Patterned, LogitsAreThoseOfTheReference) {
  model::Decoder decoder(m.spec, m.params.weights());
  expect_logits(logits_of(cx, m, decoder.forward(cx, TensorRef(ids.data(), DType::kI32, {1, kN}, kHost))), "whole");
}

TEST_P(Patterned, ThroughTheCacheInAnyPieces) {
  for (const std::vector<int64_t>& chunks : {std::vector<int64_t>(kN, 1), {17, 1, 1, 13, 8}}) {
    CachedDecoder decoder(m.spec, m.params.weights(), 1, DynamicBase::kRequest, kN);
    std::vector<float> all;
    int64_t at = 0;
    for (const int64_t n : chunks) {
      const std::vector<float> part =
          logits_of(cx, m, decoder.append(cx, TensorRef(ids.data() + at, DType::kI32, {1, n}, kHost)));
      all.insert(all.end(), part.begin(), part.end());
      at += n;
    }
    expect_logits(all, "cached");
  }
}

// With chunks of 64 tokens, far keys are gathered chunk by chunk.
TEST_P(Patterned, ChunksChangeNothing) {
  constexpr int64_t kLong = 200;
  const std::vector<int32_t> text = test::random_ids(kLong, m.spec.V, 6);
  const auto run = [&](int64_t chunk) {
    model::Decoder decoder(m.spec, m.params.weights(), {.chunk_tokens = chunk});
    return logits_of(cx, m, decoder.forward(cx, TensorRef(text.data(), DType::kI32, {1, kLong}, kHost)));
  };
  const std::vector<float> whole = run(1024), parts = run(64);
  for (size_t i = 0; i < whole.size(); ++i)  // products of other shapes are rounded differently, as in packed_test.cc
    ASSERT_NEAR(whole[i], parts[i], 1e-4 * (1 + std::abs(whole[i]))) << i;
}

// Appends the ids in pieces of 1 to `longest` tokens and compares the logits. `most` receives the largest capacity of
// the cache.
void expect_in_pieces(Context& cx, const TinyModel& m, CachedDecoder& decoder, const std::vector<int32_t>& ids,
                      int64_t longest, const std::vector<float>& expected, int64_t* most) {
  const auto tokens = static_cast<int64_t>(ids.size());
  int64_t at = 0;
  for (int64_t n = 1; at < tokens; n = n % longest + 1) {
    n = std::min(n, tokens - at);
    const std::vector<float> part =
        logits_of(cx, m, decoder.append(cx, TensorRef(ids.data() + at, DType::kI32, {1, n}, kHost)));
    for (size_t i = 0; i < part.size(); ++i) {
      const float e = expected[static_cast<size_t>(at * m.spec.V) + i];
      ASSERT_NEAR(part[i], e, 1e-3 * (1 + std::abs(e))) << at << " " << i;
    }
    at += n;
    *most = std::max(*most, decoder.cache().capacity());
  }
}

// Far more tokens than the cache keeps: decoding equals the whole sequence, and memory does not grow.
TEST(Patterns, TheCacheDropsTokens) {
  constexpr int64_t kTokens = 1700;
  for (const AttentionKind kind :
       {AttentionKind::kRope, AttentionKind::kCocaSlack, AttentionKind::kCocaStrict, AttentionKind::kAlibi})
    for (const Pattern type : {Pattern::kStreamingLlm, Pattern::kLmInfinite}) {
      SCOPED_TRACE(std::string(enum_name(kind)) + " " + std::string(enum_name(type)));
      ModelSpec spec = test::tiny_llama(kind);
      spec.pattern = {.type = type, .window = 300, .sinks = 4, .distance = type == Pattern::kLmInfinite ? 300 : 0};
      const TinyModel m(spec);
      const std::vector<int32_t> ids = test::random_ids(kTokens, m.spec.V, 7);
      Context cx;
      model::Decoder whole(m.spec, m.params.weights());
      const std::vector<float> expected =
          logits_of(cx, m, whole.forward(cx, TensorRef(ids.data(), DType::kI32, {1, kTokens}, kHost)));
      CachedDecoder decoder(m.spec, m.params.weights(), 1);
      int64_t most = 0;
      ASSERT_NO_FATAL_FAILURE(expect_in_pieces(cx, m, decoder, ids, 37, expected, &most));
      EXPECT_EQ(decoder.length(), kTokens);
      EXPECT_LE(most, 4 * kKvPage);  // the first page, 300 tokens and a partly used page at either end
      EXPECT_THAT([&] { decoder.truncate(10); }, ThrowsMessage<Error>(HasSubstr("the cache has dropped")));
      decoder.truncate(kTokens - 5);
      EXPECT_EQ(decoder.length(), kTokens - 5);
    }
}

// While middle keys are attended to, nothing may be forgotten. Uses many pages, pieces and grouped heads.
TEST(Patterns, MiddleKeysAreKeptAndAttended) {
  constexpr int64_t kTokens = 900;
  for (const AttentionKind kind : {AttentionKind::kRope, AttentionKind::kCocaSlack, AttentionKind::kAlibi}) {
    SCOPED_TRACE(enum_name(kind));
    ModelSpec spec = test::tiny_llama(kind);
    spec.pattern = {.type = Pattern::kLmInfinite,
                    .window = 100,
                    .sinks = 4,
                    .distance = 100,
                    .middle_top_k = 5,
                    .middle_from_layer = 1};
    const TinyModel m(spec);
    const std::vector<int32_t> ids = test::random_ids(kTokens, m.spec.V, 7);
    Context cx;
    model::Decoder whole(m.spec, m.params.weights());
    const std::vector<float> expected =
        logits_of(cx, m, whole.forward(cx, TensorRef(ids.data(), DType::kI32, {1, kTokens}, kHost)));
    CachedDecoder decoder(m.spec, m.params.weights(), 1);
    int64_t most = 0;
    ASSERT_NO_FATAL_FAILURE(expect_in_pieces(cx, m, decoder, ids, 61, expected, &most));
    EXPECT_EQ(decoder.cache().forgotten(), 0);
    // Without middle keys the logits must differ.
    spec.pattern.middle_top_k = 0;
    model::Decoder without(spec, m.params.weights());
    const std::vector<float> others =
        logits_of(cx, m, without.forward(cx, TensorRef(ids.data(), DType::kI32, {1, kTokens}, kHost)));
    double apart = 0;
    for (size_t i = 0; i < others.size(); ++i)
      apart = std::max(apart, std::abs(static_cast<double>(others[i] - expected[i])));
    EXPECT_GT(apart, 1e-2);
  }
}

// Strict CoCA and RoPE depend only on distances, so the window's frame changes nothing. Slack depends on positions. In
// the frame of the window, StreamingLLM gives slack the same result as a sequence without the evicted tokens.
TEST(Patterns, SlackInItsFrameEqualsATextWithoutForgottenTokens) {
  ModelSpec spec = test::tiny_llama(AttentionKind::kCocaSlack);
  spec.L = 1;
  spec.pattern = {.type = Pattern::kStreamingLlm, .window = 6, .sinks = 2};
  const TinyModel m(spec);
  std::vector<int32_t> ids = test::random_ids(30, m.spec.V, 9);
  std::vector<int32_t> kept(ids.begin(), ids.begin() + 2);
  kept.insert(kept.end(), ids.end() - 6, ids.end());
  Context cx;
  ModelSpec full = spec, absolute = spec;
  full.pattern = {};
  absolute.pattern.frame = SlackFrame::kAbsolute;
  const auto last = [&](const ModelSpec& s, const std::vector<int32_t>& text) {
    model::Decoder decoder(s, m.params.weights());
    const std::vector<float> all = logits_of(
        cx, m, decoder.forward(cx, TensorRef(text.data(), DType::kI32, {1, static_cast<int64_t>(text.size())}, kHost)));
    return std::vector<float>(all.end() - s.V, all.end());
  };
  const std::vector<float> a = last(spec, ids), b = last(full, kept), c = last(absolute, ids);
  double frame = 0, own = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    frame = std::max(frame, std::abs(static_cast<double>(a[i] - b[i])));
    own = std::max(own, std::abs(static_cast<double>(c[i] - b[i])));
  }
  EXPECT_LT(frame, 1e-4);  // in a single layer a token's key depends only on that token
  EXPECT_GT(own, 1e-2);
}

TEST(Patterns, MistakesAreNamed) {
  const auto error = [](AttentionKind kind, AttentionPattern p, const char* text) {
    ModelSpec s = test::tiny_llama(kind);
    s.pattern = p;
    EXPECT_THAT([&] { validate(s); }, ThrowsMessage<Error>(HasSubstr(text)));
  };
  error(AttentionKind::kRope, {.type = Pattern::kReRope}, "window 0 must be at least 1");
  error(AttentionKind::kRope, {.type = Pattern::kReRope, .window = 4, .sinks = 2}, "sinks 2; expected none");
  error(AttentionKind::kRope, {.type = Pattern::kLmInfinite, .window = 4}, "distance 0 must be at least 1");
  error(AttentionKind::kRope, {.type = Pattern::kStreamingLlm, .window = 4, .middle_top_k = 5},
        "none but with lm-infinite");
  error(AttentionKind::kRope, {.type = Pattern::kLmInfinite, .window = 4, .distance = 4, .middle_top_k = 5},
        "middle_from_layer is 4; expected a layer of the model, 0 to 1");
  error(AttentionKind::kRope, {.type = Pattern::kSelfExtend, .window = 4, .group = 6}, "group 6 must divide 64");
  error(AttentionKind::kXpos, small(Pattern::kStreamingLlm), "xPos decays with true distances");
  error(AttentionKind::kAlibi, small(Pattern::kSelfExtend), "attention \"alibi\" has none");
  ModelSpec partial = test::tiny_neox(AttentionKind::kRope);
  partial.R = 4;
  partial.pattern = small(Pattern::kReRope);
  EXPECT_THAT([&] { validate(partial); }, ThrowsMessage<Error>(HasSubstr("4 of 8 do")));
  ModelSpec windowed = test::tiny_qwen3(AttentionKind::kRope);
  windowed.pattern = small(Pattern::kReRope);
  EXPECT_THAT([&] { validate(windowed); }, ThrowsMessage<Error>(HasSubstr("trained with sliding windows")));
  ModelSpec s = test::tiny_llama(AttentionKind::kRope);
  s.pattern = small(Pattern::kReRope);
  EXPECT_THAT([&] { model::TrainingDecoder(s, 1, 8); }, ThrowsMessage<Error>(HasSubstr("is for evaluation")));
}

}  // namespace
}  // namespace coca::infer::pattern_test

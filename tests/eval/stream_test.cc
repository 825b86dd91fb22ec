// The stream compared with the reference decoder in double, token by token; what the cache keeps; and the border
// between documents.
// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "coca/base/stop.h"
#include "coca/eval/perplexity.h"
#include "support/numerics.h"
#include "support/reference_decoder.h"
#include "support/tiny_model.h"

namespace coca::eval::stream_test {
namespace {

using test::AttentionKind;
using test::TinyModel;
using Documents = std::vector<std::vector<int32_t>>;

model::ModelSpec streaming(AttentionKind kind, model::Pattern type, int64_t window) {
  model::ModelSpec spec = test::tiny_llama(kind);
  spec.pattern = {
      .type = type, .window = window, .sinks = 3, .distance = type == model::Pattern::kLmInfinite ? window : 0};
  return spec;
}

// The mean nll, and a tolerance for kernels: twice the largest error of a naive float run.
struct Expected {
  double nll = 0, tolerance = 0;
  int64_t tokens = 0;
};
Expected by_reference(const TinyModel& m, const Documents& documents, std::optional<int32_t> bos) {
  test::ReferenceDecoder<double> exact(m.spec, m.params);
  test::ReferenceDecoder<float> naive(m.spec, m.params);
  Expected e;
  double rough = 0;
  exact.restart();
  naive.restart();
  for (const std::vector<int32_t>& document : documents) {
    std::vector<int32_t> ids = document;
    if (ids.size() < 2) continue;
    if (bos) ids.insert(ids.begin(), *bos);
    for (size_t i = 0; i + 1 < ids.size(); ++i, ++e.tokens) {
      const std::vector<double> logits = exact.step(ids[i], 1);
      const std::vector<float> again = naive.step(ids[i], 1);
      const double nll = test::reference_nll(logits.data(), m.spec.V, ids[i + 1]);
      e.nll += nll;
      rough =
          std::max(rough, std::abs(static_cast<double>(test::reference_nll(again.data(), m.spec.V, ids[i + 1])) - nll));
    }
  }
  e.nll /= static_cast<double>(e.tokens);
  e.tolerance = 2 * rough;  // a mean's error is at most that of its terms
  return e;
}

Documents three(const TinyModel& m) {
  return {test::random_ids(40, m.spec.V, 1), test::random_ids(1, m.spec.V, 2), test::random_ids(25, m.spec.V, 3)};
}

TEST(Stream, EqualsTheReferenceTokenByToken) {
  for (const model::Pattern type : {model::Pattern::kStreamingLlm, model::Pattern::kLmInfinite})
    for (const AttentionKind kind :
         {AttentionKind::kRope, AttentionKind::kCocaSlack, AttentionKind::kCocaStrict, AttentionKind::kAlibi})
      for (const bool with_bos : {false, true}) {
        SCOPED_TRACE(fmt::format("{} {} bos {}", enum_name(type), enum_name(kind), with_bos));
        model::ModelSpec spec = streaming(kind, type, 9);
        spec.bos_id = 1;
        const TinyModel m(spec);
        const Documents documents = three(m);
        const std::optional<int32_t> bos = with_bos ? std::optional<int32_t>(1) : std::nullopt;
        const Expected expected = by_reference(m, documents, bos);
        EXPECT_EQ(expected.tokens, with_bos ? 65 : 63);
        for (const int64_t chunk : {1, 7, 128}) {
          Context cx;
          const StreamResult r =
              stream_perplexity(cx, m.spec, m.params.weights(), documents,
                                {.chunk = chunk, .interval = 20, .bos = with_bos ? Bos::kAlways : Bos::kNever});
          EXPECT_EQ(r.documents, 2);
          ASSERT_EQ(r.points.size(), 4u);
          EXPECT_EQ(r.points[0].tokens, 20);
          EXPECT_EQ(r.points.back().tokens, expected.tokens);
          EXPECT_NEAR(r.points.back().nll, expected.nll, expected.tolerance);
          double sum = 0;
          int64_t before = 0;
          for (const StreamPoint& p : r.points) {
            sum += p.part_nll * static_cast<double>(p.tokens - before);
            before = p.tokens;
            EXPECT_NEAR(p.nll, sum / static_cast<double>(p.tokens), 1e-12);
            EXPECT_DOUBLE_EQ(p.perplexity(), std::exp(p.nll));
          }
        }
      }
}

// Without a pattern and for a single document, the result is the perplexity of the document.
TEST(Stream, OneDocumentGivesItsPerplexity) {
  const TinyModel m(test::tiny_neox(AttentionKind::kCocaSlack));
  const Documents documents{test::random_ids(50, m.spec.V, 1)};
  Context cx;
  const StreamResult stream = stream_perplexity(cx, m.spec, m.params.weights(), documents, {.bos = Bos::kNever});
  PerplexityOptions o;
  o.protocol.lengths = {50};
  o.protocol.bos = Bos::kNever;
  const PerplexityResult window = perplexity(cx, m.spec, m.params.weights(), documents, o).front();
  EXPECT_EQ(stream.points.back().tokens, window.scored_tokens);
  EXPECT_NEAR(stream.points.back().nll, window.nll, 1e-4);  // two float passes, as in passkey_test.cc
}

TEST(Stream, MemoryDoesNotGrow) {
  const TinyModel m(streaming(AttentionKind::kCocaSlack, model::Pattern::kStreamingLlm, 60));
  const Documents documents{test::random_ids(4000, m.spec.V, 1)};
  Context cx;
  const StreamResult r =
      stream_perplexity(cx, m.spec, m.params.weights(), documents, {.tokens = 3500, .chunk = 50, .interval = 500});
  ASSERT_EQ(r.points.size(), 7u);
  EXPECT_EQ(r.points.back().tokens, 3500);
  for (const StreamPoint& p : r.points) {
    EXPECT_LE(p.cache_tokens, 60 + 2 * kKvPage + 50);
    EXPECT_LE(p.cache_bytes, r.points[1].cache_bytes);  // the first 500 tokens do not fill the cache
  }
}

TEST(Stream, MistakesAndStops) {
  const TinyModel m(test::tiny_llama(AttentionKind::kRope));
  Context cx;
  const auto run = [&](const Documents& documents, StreamOptions o) {
    stream_perplexity(cx, m.spec, m.params.weights(), documents, o);
  };
  const auto message = [](const char* text) { return testing::ThrowsMessage<Error>(testing::HasSubstr(text)); };
  EXPECT_THAT([&] { run({{1}}, {.bos = Bos::kNever}); }, message("text: of 1 document none has two tokens"));
  EXPECT_THAT([&] { run({{1, 2}}, {.chunk = 0}); }, message("chunk is 0"));
  EXPECT_THAT([&] { run({{1, 2}}, {.interval = 0}); }, message("interval is 0"));
  EXPECT_THAT([&] { run({{1, 2}}, {.tokens = -1}); }, message("tokens is -1"));
  StreamOptions o{.chunk = 4, .bos = Bos::kNever};
  o.progress = [](const StreamPoint& p) {
    if (p.tokens == 8) request_stop();
  };
  StreamResult result;
  EXPECT_THAT(
      [&] {
        stream_perplexity(cx, m.spec, m.params.weights(), Documents{test::random_ids(40, m.spec.V, 1)}, o, result);
      },
      message("stopped after 8 tokens"));
  clear_stop();
  ASSERT_EQ(result.points.size(), 1u);  // the interval is longer than the part that was done
  EXPECT_EQ(result.points[0].tokens, 8);
  EXPECT_EQ(result.documents, 1);
}

}  // namespace
}  // namespace coca::eval::stream_test

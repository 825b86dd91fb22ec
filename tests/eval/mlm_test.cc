// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/mlm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "coca/base/stop.h"
#include "coca/data/masking.h"
#include "coca/data/packing.h"
#include "coca/eval/perplexity.h"
#include "coca/infer/cached_decoder.h"
#include "support/reference_decoder.h"
#include "support/tiny_model.h"

namespace coca::eval::mlm_test {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

model::ModelSpec encoder() {
  model::ModelSpec s = test::tiny_llama(test::AttentionKind::kCocaSlack);
  s.direction = model::Direction::kBidirectional;
  s.layer_window = {3, 4};
  s.dilation = {1, 1, 2, 2, 1, 1, 1, 1};
  s.global_tokens = 2;
  s.mask_id = 22;
  return s;
}

// The reference computes the nll of the same masked tokens, window by window.
TEST(Mlm, PerplexityIsThatOfTheReference) {
  const test::TinyModel m(encoder());
  const std::vector<std::vector<int32_t>> documents = {test::random_ids(37, 20, 1), test::random_ids(5, 20, 2),
                                                       test::random_ids(24, 20, 3)};
  Context cx;
  const std::vector<MlmResult> results = masked_perplexity(cx, m.spec, m.params.weights(), documents, 20,
                                                           {.lengths = {12}, .seed = 5, .batch_tokens = 30});
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].windows, 5);  // three in the first document, none in the second, two in the third
  EXPECT_EQ(results[0].masked_tokens, 10);
  test::ReferenceDecoder<double> reference(m.spec, m.params);
  double nll = 0;
  size_t window = 0;
  for (const auto& document : documents)
    for (size_t at = 0; at + 12 <= document.size(); at += 12, ++window) {
      std::vector<int32_t> ids(document.begin() + static_cast<std::ptrdiff_t>(at),
                               document.begin() + static_cast<std::ptrdiff_t>(at) + 12),
          targets(12);
      Rng rng(5, mix64(window) ^ 0xe3a1);
      data::mask_window({.mask_id = 22, .vocabulary = 20}, rng, ids, targets);
      const std::vector<double> logits = reference.run(ids, 12);
      for (size_t i = 0; i < 12; ++i)
        if (targets[i] != data::kNoTarget) nll += test::reference_nll(logits.data() + i * 23, 23, targets[i]);
    }
  EXPECT_NEAR(results[0].nll, nll / 10, 1e-4);
  EXPECT_NEAR(results[0].perplexity, std::exp(nll / 10), 1e-4 * std::exp(nll / 10));
  const std::vector<MlmResult> fewer =
      masked_perplexity(cx, m.spec, m.params.weights(), documents, 20, {.lengths = {6, 12}, .max_windows = 2});
  EXPECT_EQ(fewer[0].windows, 2);
  EXPECT_EQ(fewer[1].masked_tokens, 4);
  // The second and fourth of the five windows of twelve.
  const std::vector<std::vector<int32_t>> second_and_fourth = {{documents[0].begin() + 12, documents[0].begin() + 24},
                                                               {documents[2].begin(), documents[2].begin() + 12}};
  EXPECT_EQ(fewer[1].nll,
            masked_perplexity(cx, m.spec, m.params.weights(), second_and_fourth, 20, {.lengths = {12}}).at(0).nll);
}

TEST(Mlm, KeepsFinishedLengthsAndWindows) {
  const test::TinyModel m(encoder());
  const std::vector<std::vector<int32_t>> documents = {test::random_ids(48, 20, 1)};
  MlmOptions options{.lengths = {12, 24}, .batch_tokens = 12};
  options.progress = [](int64_t, int64_t done, int64_t) {
    if (done > 48) request_stop();  // during the second length
  };
  std::vector<MlmResult> results;
  Context cx;
  EXPECT_THAT([&] { masked_perplexity(cx, m.spec, m.params.weights(), documents, 20, options, results); },
              ThrowsMessage<Error>(HasSubstr("stopped at length 24, 72 of 96")));
  clear_stop();
  ASSERT_EQ(results.size(), 2u);
  EXPECT_TRUE(results[0].whole());
  EXPECT_EQ(results[0].nll,
            masked_perplexity(cx, m.spec, m.params.weights(), documents, 20, {.lengths = {12}, .batch_tokens = 12})
                .at(0)
                .nll);
  // At the second length, only the first of its two windows.
  EXPECT_EQ(results[1].length, 24);
  EXPECT_EQ(results[1].windows, 1);
  EXPECT_EQ(results[1].planned_windows, 2);
  const std::vector<std::vector<int32_t>> first = {{documents[0].begin(), documents[0].begin() + 24}};
  EXPECT_EQ(
      results[1].nll,
      masked_perplexity(cx, m.spec, m.params.weights(), first, 20, {.lengths = {24}, .batch_tokens = 12}).at(0).nll);
}

TEST(Mlm, ModelsOfTheWrongDirectionAreRefused) {
  const test::TinyModel both(encoder()), causal(test::tiny_llama(test::AttentionKind::kRope));
  const std::vector<std::vector<int32_t>> documents = {test::random_ids(20, 20, 1)};
  Context cx;
  const auto error = [](const auto& body, const char* text) {
    EXPECT_THAT(body, ThrowsMessage<Error>(HasSubstr(text)));
  };
  error([&] { masked_perplexity(cx, causal.spec, causal.params.weights(), documents, 20, {.lengths = {8}}); },
        "the model is causal; expected a bidirectional one");
  error([&] { masked_perplexity(cx, both.spec, both.params.weights(), documents, 20, {.lengths = {21}}); },
        "lengths holds 21: no document is long enough");
  error([&] { infer::CachedDecoder(both.spec, both.params.weights(), 1); }, "generation: the model is bidirectional");
  error([&] { perplexity(cx, both.spec, both.params.weights(), documents, {.protocol = {.lengths = {8}}}); },
        "perplexity: the model is bidirectional");
}

}  // namespace
}  // namespace coca::eval::mlm_test

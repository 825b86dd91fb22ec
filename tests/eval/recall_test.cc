// Pairs of names, found by hand in small texts, and their scores against the reference decoder in double.
// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/recall.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <mutex>

#include "coca/dist/thread_group.h"
#include "support/numerics.h"
#include "support/reference_decoder.h"
#include "support/tiny_model.h"

namespace coca::eval::recall_test {
namespace {

using test::AttentionKind;
using test::TinyModel;

const text::Tokenizer& bytes() {
  static const auto tokenizer = text::make_byte_tokenizer();
  return *tokenizer;
}

std::vector<RecallPair> pairs_in(const std::vector<std::string>& texts, const RecallOptions& o, int64_t front = 0) {
  std::vector<std::vector<int32_t>> documents;
  for (const std::string& text : texts) documents.push_back(bytes().encode(text));
  return find_pairs(bytes(), documents, o, front);
}

TinyModel model_of_bytes() {
  model::ModelSpec spec = test::tiny_llama(AttentionKind::kCocaSlack);
  spec.V = bytes().vocab_size();
  return TinyModel(spec);
}

// A token is a byte here. "The" is also there in small letters; "Eve" stands at the start, where nothing precedes it
// without a bos.
TEST(Recall, NamesByHand) {
  const std::string text = "Eve, said the dog. The dog saw Adam. The Adam and Eve met Adam.";
  //                        0         1         2         3         4         5         6
  const std::vector<RecallPair> pairs = pairs_in({"nothing here", text}, {.lead = 4});
  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_EQ(pairs[0].document, 1);
  EXPECT_EQ(pairs[0].first, 31);
  EXPECT_EQ(pairs[0].second, 41);
  EXPECT_EQ(pairs[0].tokens, 4);
  EXPECT_EQ(pairs[0].begin, 27);
  EXPECT_EQ(pairs[0].end(), 45);
  EXPECT_EQ(pairs[0].distance(), 10);
  EXPECT_EQ(pairs[1].first, 41);
  EXPECT_EQ(pairs[1].second, 58);
  EXPECT_EQ(pairs[1].begin, 37);                           // the Adam before it ends at 35
  EXPECT_EQ(pairs_in({text}, {.lead = 20})[1].begin, 35);  // and must not be in the window
  EXPECT_EQ(pairs_in({text}, {.lead = 4}, 1).size(), 3u);  // with a bos
  EXPECT_EQ(pairs_in({text}, {.lead = 4}, 1)[0].second, 50);
}

// "dog" twice, "saw" once, "cat" four times; names count too.
TEST(Recall, RareWordsByHand) {
  const std::string text = "a cat saw dog, cat and dog. cat, cat.";
  const std::vector<RecallPair> pairs = pairs_in({text}, {.lead = 4, .words = RecallWords::kRare});
  ASSERT_EQ(pairs.size(), 1u);
  EXPECT_EQ(pairs[0].first, 10);
  EXPECT_EQ(pairs[0].second, 23);
}

TEST(Recall, ScoresAreThoseOfTheReference) {
  TinyModel m = model_of_bytes();
  const std::vector<std::string> texts = {"well, Adam went. I saw that Adam.", "so Bob met, at noon, Bob."};
  std::vector<std::vector<int32_t>> documents;
  for (const std::string& text : texts) documents.push_back(bytes().encode(text));
  for (const RecallGiven given : {RecallGiven::kFirst, RecallGiven::kNothing}) {
    const RecallOptions o{.lengths = {16, 32}, .lead = 5, .given = given, .bos = Bos::kNever};
    std::vector<RecallResult> results;
    Context cx;
    recall(cx, m.spec, m.params.weights(), bytes(), documents, o, results);
    ASSERT_EQ(results.size(), 1u);  // windows of 5 + 22 + 4 and 3 + 18 + 3 tokens
    const RecallResult& r = results[0];
    EXPECT_EQ(r.length, 32);
    EXPECT_EQ(r.found, 2);
    EXPECT_EQ(r.pairs, 2);
    EXPECT_EQ(r.least_distance, 18);
    EXPECT_EQ(r.most_distance, 22);
    test::ReferenceDecoder<double> exact(m.spec, m.params);
    double first = 0, second = 0, names[2] = {};
    int64_t tokens = 0, right = 0, row = 0;
    for (const RecallPair& p : find_pairs(bytes(), documents, o, 0)) {
      const auto& ids = documents[static_cast<size_t>(p.document)];
      const std::vector<int32_t> window(ids.begin() + p.begin, ids.begin() + p.end());
      const std::vector<double> logits = exact.run(window, static_cast<int64_t>(window.size()));
      bool all = true;
      for (int64_t i = given == RecallGiven::kFirst ? 1 : 0; i < p.tokens; ++i, ++tokens) {
        const auto nll = [&](int64_t at) {
          row = (at + i - p.begin - 1) * m.spec.V;
          return test::reference_nll(logits.data() + row, m.spec.V, ids[static_cast<size_t>(at + i)]);
        };
        const double one = nll(p.first), two = nll(p.second);  // leaves the second's row
        first += one;
        second += two;
        names[p.document] += one - two;
        const auto best = std::max_element(logits.begin() + row, logits.begin() + row + m.spec.V);
        all = all && best - logits.begin() - row == ids[static_cast<size_t>(p.second + i)];
      }
      right += all;
    }
    // A loss of about 6 after 800 roundings of logits up to 16: sqrt(800) eps 16.
    constexpr double kError = 5e-5;
    const auto n = static_cast<double>(tokens);
    EXPECT_EQ(tokens, given == RecallGiven::kFirst ? 5 : 7);
    EXPECT_EQ(r.gain.items, tokens);
    EXPECT_NEAR(r.first.nll.mean, first / n, kError);
    EXPECT_NEAR(r.second.nll.mean, second / n, kError);
    EXPECT_NEAR(r.gain.mean, (first - second) / n, kError);
    EXPECT_DOUBLE_EQ(r.second.accuracy, static_cast<double>(right) / 2);
    const double adam = given == RecallGiven::kFirst ? 3 : 4;
    // Two groups are off by the same amount in opposite directions: sqrt(2 * 2 off^2) = 2 |off|.
    const double off = std::abs(names[0] - adam * (first - second) / n);
    EXPECT_NEAR(r.gain.interval.value().high - r.gain.mean, student_t(1) * 2 * off / n, 2 * student_t(1) * kError);
  }
}

TEST(Recall, RanksShareTheWindows) {
  const TinyModel m = model_of_bytes();
  std::string text = "so ";
  for (int i = 0; i < 12; ++i) text += "Adam and then some words, ";
  const std::vector<std::vector<int32_t>> documents = {bytes().encode(text)};
  const auto run = [&](dist::Communicator& ranks) {
    std::vector<RecallResult> results;
    Context cx;
    recall(cx, m.spec, m.params.weights(), bytes(), documents, {.lengths = {64}, .pairs = 5, .lead = 8, .ranks = ranks},
           results);
    return results.at(0);
  };
  const RecallResult one = run(dist::alone());
  EXPECT_EQ(one.found, 11);
  EXPECT_EQ(one.pairs, 5);
  dist::run_ranks(2, [&](dist::Communicator& ranks) {
    const RecallResult r = run(ranks);
    EXPECT_EQ(r.pairs, 5);
    EXPECT_EQ(r.first.nll.mean, one.first.nll.mean);
    EXPECT_EQ(r.second.nll.mean, one.second.nll.mean);
  });
}

TEST(Recall, NumbersThatAreNotFiniteAreReported) {
  TinyModel m = model_of_bytes();
  float* head = m.params.tensors().head.as<float>();
  for (int64_t i = 0; i < m.spec.C; ++i) head[i] = std::numeric_limits<float>::quiet_NaN();
  std::vector<RecallResult> results;
  Context cx;
  const std::vector<std::vector<int32_t>> documents = {bytes().encode("so Adam and then Adam.")};
  recall(cx, m.spec, m.params.weights(), bytes(), documents, {.lengths = {32}}, results);
  EXPECT_TRUE(std::isnan(results.at(0).second.accuracy));
  EXPECT_TRUE(std::isnan(results.at(0).first.interval.low));
}

TEST(Recall, MistakesAreNamed) {
  const TinyModel m = model_of_bytes();
  const std::vector<std::vector<int32_t>> documents = {bytes().encode("so Adam and then Adam.")};
  const auto refused = [&](const RecallOptions& o, const char* text) {
    EXPECT_THAT([&] { plan_recall(m.spec, bytes(), documents, o); },
                testing::ThrowsMessage<Error>(testing::HasSubstr(text)));
  };
  refused({.lengths = {}}, "lengths: none given");
  refused({.lengths = {7}}, "lengths holds 7;");
  refused({.lengths = {32}, .pairs = 0}, "pairs is 0;");
  refused({.lengths = {32}, .lead = 0}, "lead is 0;");
  refused({.lengths = {512}}, "text: 1 document with no word that occurs twice");
}

}  // namespace
}  // namespace coca::eval::recall_test

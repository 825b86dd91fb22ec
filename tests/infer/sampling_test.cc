// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <vector>

#include "coca/base/error.h"

namespace coca::infer::sampling_test {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::map<int32_t, int64_t> draw(const std::vector<float>& logits, const SamplingOptions& options, int64_t times,
                                uint64_t seed = 1) {
  Rng rng(seed);
  std::map<int32_t, int64_t> counts;
  for (int64_t i = 0; i < times; ++i) ++counts[sample(logits, options, rng)];
  return counts;
}

// Pearson's statistic over the cells whose probability is not zero.
double statistic_of(const std::map<int32_t, int64_t>& counts, const std::vector<double>& probabilities, int64_t times) {
  double statistic = 0;
  for (size_t i = 0; i < probabilities.size(); ++i) {
    if (probabilities[i] == 0) continue;
    const auto found = counts.find(static_cast<int32_t>(i));
    const double count = found == counts.end() ? 0.0 : static_cast<double>(found->second);
    const double expected = probabilities[i] * static_cast<double>(times);
    EXPECT_GE(expected, 20) << "too few draws for the statistic";
    statistic += (count - expected) * (count - expected) / expected;
  }
  return statistic;
}

// For k degrees of freedom, P(X >= k + 2 sqrt(k x) + 2 x) <= exp(-x) (Laurent and Massart 2000). With x = 14 a false
// alarm is less likely than 1e-6, and the seed is fixed.
double bound(double k) { return k + 2 * std::sqrt(k * 14) + 28; }

void expect_distribution(const std::map<int32_t, int64_t>& counts, const std::vector<double>& probabilities,
                         int64_t times) {
  double cells = 0;
  for (size_t i = 0; i < probabilities.size(); ++i) {
    if (probabilities[i] == 0) {
      EXPECT_FALSE(counts.contains(static_cast<int32_t>(i))) << "token " << i << " must not be drawn";
    }
    cells += probabilities[i] > 0;
  }
  EXPECT_LE(statistic_of(counts, probabilities, times), bound(cells - 1));
}

std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  double sum = 0;
  for (const float l : logits) sum += p.emplace_back(std::exp(static_cast<double>(l) / temperature));
  for (double& value : p) value /= sum;
  return p;
}

TEST(Sampling, TopKBeyondTheVocabularyKeepsAll) {
  const std::vector<float> logits = {0.5f, 2.0f, -1.0f, 1.5f};
  Rng all(3), most(3);
  for (int i = 0; i < 50; ++i)
    EXPECT_EQ(sample(logits, {.top_k = std::numeric_limits<int64_t>::max()}, most), sample(logits, {.top_k = 0}, all));
}

TEST(Sampling, FollowsTheSoftmax) {
  const std::vector<float> logits = {0.5f, -1.0f, 2.0f, 0.0f, 1.5f, -0.3f};
  constexpr int64_t kTimes = 40000;
  for (const double temperature : {0.7, 1.0, 2.5}) {
    SCOPED_TRACE(temperature);
    expect_distribution(draw(logits, {.temperature = temperature}, kTimes), softmax(logits, temperature), kTimes);
  }
}

TEST(Sampling, AWrongDistributionIsDetected) {  // the check can fail
  const std::vector<float> logits = {0.0f, 0.0f};
  const auto counts = draw(logits, {}, 40000);
  const std::vector<double> wrong = {0.52, 0.48};
  EXPECT_GT(statistic_of(counts, wrong, 40000), bound(1));
}

TEST(Sampling, TopKKeepsTheLikeliest) {
  const std::vector<float> logits = {0.5f, -1.0f, 2.0f, 0.0f, 1.5f, -0.3f};
  std::vector<double> p = softmax(logits, 1.0);
  p[1] = p[3] = p[5] = 0;
  const double left = p[0] + p[2] + p[4];
  for (double& value : p) value /= left;
  expect_distribution(draw(logits, {.top_k = 3}, 40000), p, 40000);
  EXPECT_EQ(draw(logits, {.top_k = 1}, 200), (std::map<int32_t, int64_t>{{2, 200}}));
  expect_distribution(draw(logits, {.top_k = 100}, 40000), softmax(logits, 1.0),
                      40000);  // top_k exceeds the vocabulary
}

// Probabilities 0.5, 0.3, 0.2 (tokens 1, 0, 2).
std::vector<float> three() {
  return {static_cast<float>(std::log(0.3)), static_cast<float>(std::log(0.5)), static_cast<float>(std::log(0.2))};
}

TEST(Sampling, TopPKeepsTheSmallestSetThatReachesIt) {
  expect_distribution(draw(three(), {.top_p = 0.45}, 4000), {0, 1, 0}, 4000);
  expect_distribution(draw(three(), {.top_p = 0.49999}, 4000), {0, 1, 0}, 4000);
  expect_distribution(draw(three(), {.top_p = 0.51}, 40000), {0.375, 0.625, 0}, 40000);
  expect_distribution(draw(three(), {.top_p = 0.79999}, 40000), {0.375, 0.625, 0}, 40000);
  expect_distribution(draw(three(), {.top_p = 0.81}, 40000), {0.3, 0.5, 0.2}, 40000);
  expect_distribution(draw(three(), {.top_p = 1.0}, 40000), {0.3, 0.5, 0.2}, 40000);
  expect_distribution(draw(three(), {.top_p = 1e-9}, 4000), {0, 1, 0}, 4000);  // at least one token is always kept
}

// p refers to what top-k kept: of 0.5 and 0.3, the first alone has 0.625.
TEST(Sampling, TopPAfterTopK) {
  expect_distribution(draw(three(), {.top_k = 2, .top_p = 0.62}, 4000), {0, 1, 0}, 4000);
  expect_distribution(draw(three(), {.top_k = 2, .top_p = 0.63}, 40000), {0.375, 0.625, 0}, 40000);
}

TEST(Sampling, TiesGoToTheLowestId) {
  const std::vector<float> logits = {1.0f, 3.0f, 3.0f, 3.0f, 0.0f};
  EXPECT_EQ(argmax(logits), 1);
  EXPECT_EQ(draw(logits, {.temperature = 0}, 10), (std::map<int32_t, int64_t>{{1, 10}}));
  expect_distribution(draw(logits, {.top_k = 2}, 40000), {0, 0.5, 0.5, 0, 0}, 40000);
  EXPECT_EQ(draw(logits, {.top_k = 1}, 100), (std::map<int32_t, int64_t>{{1, 100}}));
}

TEST(Sampling, ExtremeLogits) {
  const auto inf = static_cast<float>(kInf);
  EXPECT_EQ(draw({-inf, 0.0f, -inf}, {}, 100), (std::map<int32_t, int64_t>{{1, 100}}));
  EXPECT_EQ(draw({1e30f, -1e30f}, {}, 100), (std::map<int32_t, int64_t>{{0, 100}}));
  EXPECT_EQ(draw({0.0f, 1.0f}, {.temperature = 1e-6}, 100), (std::map<int32_t, int64_t>{{1, 100}}));
  EXPECT_EQ(draw({7.0f}, {}, 5), (std::map<int32_t, int64_t>{{0, 5}}));
}

TEST(Sampling, TheSameSeedDrawsTheSame) {
  const std::vector<float> logits = {0.5f, -1.0f, 2.0f, 0.0f};
  EXPECT_EQ(draw(logits, {}, 1000, 7), draw(logits, {}, 1000, 7));
  EXPECT_NE(draw(logits, {}, 1000, 7), draw(logits, {}, 1000, 8));
}

// The choice by definition: a full sort, with ties in order of ids.
int32_t sample_by_sorting(const std::vector<float>& logits, const SamplingOptions& o, Rng& rng) {
  struct Candidate {
    int32_t id;
    double weight;
  };
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<Candidate> all;
  for (size_t i = 0; i < logits.size(); ++i)
    all.push_back({static_cast<int32_t>(i), std::exp((static_cast<double>(logits[i]) - largest) / o.temperature)});
  std::stable_sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) { return a.weight > b.weight; });
  const auto total = [&] {
    return std::accumulate(all.begin(), all.end(), 0.0, [](double sum, const Candidate& c) { return sum + c.weight; });
  };
  if (o.top_k > 0 && static_cast<size_t>(o.top_k) < all.size()) all.resize(static_cast<size_t>(o.top_k));
  const double wanted = o.top_p * total();
  double sum = 0;
  size_t kept = 0;
  while (kept < all.size() && (o.top_p == 1 || sum < wanted)) sum += all[kept++].weight;
  all.resize(kept);
  while (all.back().weight < o.min_p) all.pop_back();
  double left = rng.uniform() * total();
  for (const Candidate& c : all)
    if ((left -= c.weight) < 0) return c.id;
  return all.back().id;
}

// Peaked, flat and tied logits, with more ids than are sorted at first.
TEST(Sampling, EqualsSamplingByAFullSort) {
  Rng make(3);
  for (const double spread : {0.0, 0.5, 6.0})
    for (const bool ties : {false, true}) {
      std::vector<float> logits(3000);
      for (float& l : logits) l = static_cast<float>(spread * (ties ? std::round(make.normal()) : make.normal()));
      for (const SamplingOptions& o : {SamplingOptions{},
                                       {.temperature = 0.7, .top_p = 0.9},
                                       {.top_k = 50},
                                       {.top_k = 700, .top_p = 0.95},
                                       {.top_p = 0.3, .min_p = 0.1},
                                       {.min_p = 0.4},
                                       {.top_k = 5000, .top_p = 0.999},
                                       {.top_k = 1}}) {
        Rng ours(9), sorted(9);
        for (int i = 0; i < 50; ++i)
          ASSERT_EQ(sample(logits, o, ours), sample_by_sorting(logits, o, sorted))
              << spread << " " << o.top_k << " " << o.top_p << " " << o.min_p;
      }
    }
}

TEST(Sampling, NanIsAnError) {
  Rng rng(1);
  for (const std::vector<float>& logits : {std::vector<float>{kNan, 1.0f}, {1.0f, kNan}, {kNan, kNan}}) {
    for (const double temperature : {0.0, 1.0}) {
      try {
        sample(logits, {.temperature = temperature}, rng);
        ADD_FAILURE() << "NaN went unseen";
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kNumeric);
      }
    }
  }
}

TEST(Sampling, OptionsAreChecked) {
  const auto message = [](const char* text) { return testing::ThrowsMessage<Error>(testing::HasSubstr(text)); };
  EXPECT_THAT([] { check_sampling({.temperature = -0.1}); }, message("temperature -0.1"));
  EXPECT_THAT([] { check_sampling({.temperature = kInf}); }, message("temperature inf"));
  EXPECT_THAT([] { check_sampling({.top_k = -1}); }, message("top-k -1"));
  EXPECT_THAT([] { check_sampling({.top_p = 0.0}); }, message("top-p 0"));
  EXPECT_THAT([] { check_sampling({.top_p = 1.5}); }, message("top-p 1.5"));
  EXPECT_NO_THROW(check_sampling({.temperature = 0, .top_k = 5, .top_p = 1}));
}

// log-probabilities of 0.5, 0.25, 0.15, 0.1
const std::vector<float> kFour = {std::log(0.15f), std::log(0.5f), std::log(0.1f), std::log(0.25f)};

TEST(Sampling, MinPKeepsWhatIsNearTheLikeliest) {
  constexpr int64_t kTimes = 20000;
  expect_distribution(draw(kFour, {.min_p = 0.4}, kTimes), {0, 0.5 / 0.75, 0, 0.25 / 0.75}, kTimes);
  expect_distribution(draw(kFour, {.min_p = 0.0}, kTimes), {0.15, 0.5, 0.1, 0.25}, kTimes);
  expect_distribution(draw(kFour, {.min_p = 1.0}, kTimes), {0, 1, 0, 0}, kTimes);
  // Applied after the temperature: at 2 the ratios are square roots, 0.707, 0.548, 0.447.
  expect_distribution(draw(kFour, {.temperature = 2, .min_p = 0.6}, kTimes), {0, 1 / 1.7071, 0, 0.7071 / 1.7071},
                      kTimes);
  expect_distribution(draw(kFour, {.top_k = 3, .min_p = 0.25}, kTimes), {0.15 / 0.9, 0.5 / 0.9, 0, 0.25 / 0.9}, kTimes);
}

TEST(Sampling, RepetitionPenalty) {
  std::vector<float> logits = {2, -2, 4, 0};
  penalize_repetition(logits, std::vector<int32_t>{0, 1, 0, 3}, 2.0);
  EXPECT_EQ(logits, (std::vector<float>{1, -4, 4, 0}));  // each penalized once; the penalty lowers logits of both signs
  penalize_repetition(logits, std::vector<int32_t>{0, 1, 2, 3}, 1.0);
  EXPECT_EQ(logits, (std::vector<float>{1, -4, 4, 0}));
  EXPECT_THAT([&] { penalize_repetition(logits, std::vector<int32_t>{4}, 2.0); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("token id 4")));
}

TEST(Sampling, NewOptionsAreChecked) {
  const auto message = [](const char* text) { return testing::ThrowsMessage<Error>(testing::HasSubstr(text)); };
  EXPECT_THAT([] { check_sampling({.min_p = 1.5}); }, message("min-p 1.5"));
  EXPECT_THAT([] { check_sampling({.min_p = -0.1}); }, message("min-p -0.1"));
  EXPECT_THAT([] { check_sampling({.repetition_penalty = 0}); }, message("repetition-penalty 0"));
  EXPECT_THAT([] { check_sampling({.repetition_penalty = 1e-320}); }, message("must be 1e-6 to 1e6"));
}

}  // namespace
}  // namespace coca::infer::sampling_test

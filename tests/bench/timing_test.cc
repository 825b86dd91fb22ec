// Interleaved rounds, medians and quartiles, and the check of results.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coca/base/error.h"
#include "coca/base/stop.h"
#include "coca/bench/answers.h"
#include "coca/bench/machine.h"
#include "coca/bench/timing.h"

namespace coca::bench::timing_test {
namespace {

using testing::ElementsAre;

TEST(Timing, QuantilesLieBetweenNeighbours) {
  EXPECT_DOUBLE_EQ(quantile({3, 1, 2}, 0.5), 2);
  EXPECT_DOUBLE_EQ(quantile({4, 1, 3, 2}, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(quantile({4, 1, 3, 2}, 0.25), 1.75);
  EXPECT_DOUBLE_EQ(quantile({7}, 0.75), 7);
  const Timing t = summarise({5, 1, 2, 4, 3});
  EXPECT_DOUBLE_EQ(t.median, 3);
  EXPECT_DOUBLE_EQ(t.low, 2);
  EXPECT_DOUBLE_EQ(t.high, 4);
  EXPECT_DOUBLE_EQ(t.spread(), 1.0 / 3);
}

TEST(Timing, SumsAndRatiosGoRoundByRound) {
  const Timing a = summarise({2, 4, 30}), b = summarise({1, 2, 10});  // the machine was slow in the last round
  EXPECT_DOUBLE_EQ(ratio_of(a, b).median, 2);
  EXPECT_DOUBLE_EQ(ratio_of(a, b).high, 2.5);
  EXPECT_DOUBLE_EQ((a + b).median, 6);
  EXPECT_THROW(ratio_of(a, summarise({1})), Error);
}

TEST(Timing, ARateIsThatOfTheFastestRound) {
  const Timing t = summarise({4, 2, 8, 8, 8});
  EXPECT_EQ(t.fastest(), 2);
  const double one = 2e-9 * 2048 * 2048 * 2048;
  EXPECT_DOUBLE_EQ(MatrixProduct::gflops(t), one / 2);
}

TEST(Timing, ContestantsAlternate) {
  std::string order;
  const std::vector<Contestant> two = {{"a", [&] { order += 'a'; }}, {"b", [&] { order += 'b'; }}};
  ProgressCounter progress;
  const RepeatOptions o{.repeats = 3, .warmup = 1, .sample_seconds = 0};
  const std::vector<Timing> timings = measure_interleaved(two, o, progress);
  EXPECT_EQ(order, "abababab");
  ASSERT_EQ(timings.size(), 2u);
  EXPECT_EQ(timings[1].samples.size(), 3u);
  EXPECT_EQ(progress.done, planned_steps(2, o));
}

TEST(Timing, ProgressNamesStepsAndTheShareOfTheWork) {
  const std::vector<Contestant> one = {{"a", [] {}}};
  std::vector<std::string> begun;
  std::vector<double> shares;
  ProgressCounter progress{.sink = [&](const ProgressState& s) {
    if (s.begins)
      begun.emplace_back(s.what);
    else
      shares.push_back(s.share);
  }};
  progress.plan(2, 1);
  progress.plan(2, 9);  // 20 units of work in total
  const RepeatOptions o{.repeats = 1, .warmup = 1, .sample_seconds = 0};
  progress.work_of_step = 1;
  measure_interleaved(one, o, progress);
  progress.work_of_step = 9;
  measure_interleaved(one, o, progress);
  EXPECT_THAT(begun, ElementsAre("warm-up: a", "a", "warm-up: a", "a"));
  EXPECT_THAT(shares, ElementsAre(0.05, 0.1, 0.55, 1.0));
}

TEST(Timing, FastRunsAreRepeated) {
  int runs = 0;
  const std::vector<Contestant> one = {{"a", [&] { ++runs; }}};
  ProgressCounter progress;
  measure_interleaved(one, {.repeats = 1, .warmup = 1, .sample_seconds = 1e-3}, progress);
  EXPECT_GT(runs, 10);
}

TEST(Timing, AStopRequestEndsIt) {
  ProgressCounter progress;
  const std::vector<Contestant> one = {{"a", [] {}}};
  request_stop();
  EXPECT_THROW(measure_interleaved(one, {}, progress), Error);
  clear_stop();
}

TEST(Timing, BadOptionsAreNamed) {
  EXPECT_THROW(check_repeats({.repeats = 0}), Error);
  EXPECT_THROW(check_repeats({.warmup = -1}), Error);
  EXPECT_THROW(check_repeats({.sample_seconds = -1}), Error);
}

// A benchmark whose results are wrong must fail.
TEST(Answers, AWrongResultIsAnError) {
  const Tensor right = random_tensor({100}, DType::kF32, 1);
  Tensor wrong = random_tensor({100}, DType::kF32, 1);
  EXPECT_EQ(relative_distance(wrong, right), 0);
  EXPECT_NO_THROW(check_close(wrong, right, Precision::kF32, 1, "o"));
  for (float& v : wrong.values<float>()) v *= 1.0f + 1e-5f;
  EXPECT_NEAR(relative_distance(wrong, right), 1e-5, 1e-6);
  EXPECT_THROW(check_close(wrong, right, Precision::kF32, 32, "o"), Error);
  EXPECT_NO_THROW(check_close(wrong, right, Precision::kBF16, 1, "o"));
  wrong.values<float>()[7] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(check_close(wrong, right, Precision::kBF16, 32, "o"), Error);
  EXPECT_THROW(check_close(Tensor({100}), Tensor({100}), Precision::kF32, 32, "zeros"), Error);
}

TEST(Answers, BF16InputsAreTheRoundedOnes) {
  const Tensor wide = random_tensor({64}, DType::kF32, 5), narrow = random_tensor({64}, DType::kBF16, 5);
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ(narrow.values<BF16>()[i].bits, BF16(wide.values<float>()[i]).bits);
}

}  // namespace
}  // namespace coca::bench::timing_test

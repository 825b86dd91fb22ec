// Progress lines with a clock that the test controls.
// SPDX-License-Identifier: Apache-2.0
#include "coca/report/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "coca/base/error.h"

namespace coca::report::progress_test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

struct Bench {
  double now = 100;
  std::vector<std::string> said;

  Progress progress(ProgressOptions options) {
    options.clock = [this] { return now; };
    return Progress(std::move(options), [this](std::string_view text) { said.emplace_back(text); });
  }
};

TEST(Progress, LogLinesAreTenSecondsApart) {
  Bench bench;
  Progress p = bench.progress({.total = 100, .unit = "steps", .label = "train"});
  for (int step = 1; step <= 60; ++step) {
    bench.now += 1;
    p.update(step, "loss 2.5");
  }
  ASSERT_EQ(bench.said.size(), 6u);
  EXPECT_EQ(bench.said[0], "train  10/100 steps (10%)  loss 2.5  1 min 30 s left\n");
  EXPECT_EQ(bench.said[5], "train  60/100 steps (60%)  loss 2.5  40.0 s left\n");
}

TEST(Progress, ShareOfTheWorkJudgesTheTimeLeft) {
  Bench bench;
  Progress p = bench.progress({.total = 4, .unit = "runs"});
  bench.now += 20;
  p.update(2, "", 0.1);  // the second half takes longer
  p.update(4, "", 1.0);
  ASSERT_EQ(bench.said.size(), 1u);
  EXPECT_EQ(bench.said[0], "2/4 runs (50%)  3 min 00 s left\n");
}

TEST(Progress, StartsAreShownAtOnceAndThenNotTooOften) {
  Bench bench;
  Progress p = bench.progress({.total = 3, .unit = "runs", .label = "ring"});
  p.begin("making the model");
  bench.now += 1;
  p.begin("first run");
  bench.now += 10;
  p.begin("second run");
  ASSERT_EQ(bench.said.size(), 2u);
  EXPECT_EQ(bench.said[0], "ring  0/3 runs (0%)  making the model\n");
  EXPECT_EQ(bench.said[1], "ring  0/3 runs (0%)  second run\n");
}

TEST(Progress, LongWorkSaysAboutFortyLines) {
  Bench bench;
  Progress p = bench.progress({.total = 100000});
  for (int step = 1; step <= 100000; ++step) {
    bench.now += 1;
    p.update(step);
  }
  p.finish();
  EXPECT_GE(bench.said.size(), 39u);
  EXPECT_LE(bench.said.size(), 41u);
}

TEST(Progress, UnknownTotalSlowsDown) {
  Bench bench;
  Progress p = bench.progress({.unit = "files"});
  for (int step = 1; step <= 100000; ++step) {
    bench.now += 1;
    p.update(step);
  }
  EXPECT_LE(bench.said.size(), 60u);
  EXPECT_EQ(bench.said[0], "10 files\n");
}

TEST(Progress, TerminalRewritesItsLine) {
  Bench bench;
  Progress p = bench.progress({.total = 10, .label = "eval", .terminal = Terminal::kYes});
  for (int step = 1; step <= 9; ++step) {
    bench.now += 0.11;
    p.update(step, "x\ny");
  }
  ASSERT_EQ(bench.said.size(), 4u);  // every second call: 0.22 s apart
  for (const std::string& text : bench.said) {
    EXPECT_TRUE(text.starts_with("\reval  ")) << text;
    EXPECT_TRUE(text.ends_with("\x1b[K")) << text;
    EXPECT_THAT(text, Not(HasSubstr("\n")));
  }
  p.finish("done");
  EXPECT_EQ(bench.said.back(), "\reval  9 steps in 990 ms  done\x1b[K\n");
}

TEST(Progress, TerminalLinesAreCut) {
  Bench bench;
  Progress p = bench.progress({.total = 10, .terminal = Terminal::kYes, .columns = 20});
  bench.now += 1;
  p.update(1, "ééééééééééééééééééééé");
  EXPECT_EQ(bench.said.at(0), "\r1/10 steps (10%)  éé\x1b[K");
}

TEST(Progress, ResumedWorkJudgesTimeLeftByThisRun) {
  Bench bench;
  Progress p = bench.progress({.total = 1000, .start = 900});
  bench.now += 20;
  p.update(910);
  EXPECT_EQ(bench.said.at(0), "910/1,000 steps (91%)  3 min 00 s left\n");
}

TEST(Progress, FinishPrintsOnceAndEndsTheLine) {
  Bench bench;
  Progress p = bench.progress({.total = 5});
  bench.now += 2;
  p.update(5);
  p.finish();
  p.finish();
  bench.now += 100;
  p.update(5);
  EXPECT_THAT(bench.said, testing::ElementsAre("5 steps in 2.0 s\n"));
  Bench one;
  Progress single = one.progress({.unit = "steps"});
  single.update(1);
  single.finish();
  EXPECT_THAT(one.said.back(), testing::StartsWith("1 step in "));
}

TEST(Progress, TheLastLineSaysTheWorkOfThisRun) {
  Bench bench;
  Progress p = bench.progress({.total = 400, .start = 295});
  bench.now += 44;
  p.update(400);
  p.finish("loss 2.5");
  EXPECT_EQ(bench.said.back(), "105 steps in 44.0 s (400 in all)  loss 2.5\n");
}

TEST(Progress, TimeBeforeTheFirstReportCounts) {
  Bench bench;
  Progress p = bench.progress({.total = 4, .began = 30, .unit = "prompts"});
  p.update(2);
  bench.now += 10;
  p.update(2);
  p.finish();
  EXPECT_THAT(bench.said, testing::ElementsAre("2/4 prompts (50%)  40.0 s left\n", "2 prompts in 40.0 s\n"));
}

TEST(Progress, EmptySinkIsSilentAndOptionsAreChecked) {
  Progress p({.total = 3}, {});
  p.update(3);
  p.finish();
  EXPECT_THROW(Progress({.total = -1}, {}), Error);
}

}  // namespace
}  // namespace coca::report::progress_test

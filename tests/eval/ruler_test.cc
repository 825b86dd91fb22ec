// Scores, intervals and cells of RULER's tasks, on a model with arbitrary answers.
// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/ruler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "coca/base/stop.h"
#include "support/tiny_model.h"

namespace coca::eval::ruler_test {
namespace {

using data::RulerTask;
using test::TinyModel;

TEST(StringMatchAll, CountsTheAnswersFound) {
  const std::vector<std::string> two = {"Alpha", "17"};
  EXPECT_EQ(string_match_all("it is ALPHA and 4178.", two), 1);
  EXPECT_EQ(string_match_all("alpha, 18", two), 0.5);
  EXPECT_EQ(string_match_all("", two), 0);
}

TinyModel byte_model() {
  model::ModelSpec spec = test::tiny_neox(test::AttentionKind::kCocaSlack);
  spec.V = 257;
  spec.bos_id = 256;
  spec.L = 1;
  return TinyModel(spec);
}

RulerResult run(const TinyModel& m, const RulerOptions& options) {
  Context cx;
  return ruler(cx, m.spec, m.params.weights(), *text::make_byte_tokenizer(), options);
}

RulerOptions small() {
  return {.tasks = {RulerTask::kVariableTracking, RulerTask::kFrequentWords}, .lengths = {1100, 1200}, .samples = 2};
}

TEST(RulerEval, SamplesFitAndDependOnlyOnTheirPlace) {
  const TinyModel m = byte_model();
  RulerOptions options = small();
  std::vector<RulerSample> samples;
  options.progress = [&](const RulerSample& s, int64_t done, int64_t total) {
    samples.push_back(s);
    EXPECT_EQ(done, static_cast<int64_t>(samples.size()));
    EXPECT_EQ(total, 8);
  };
  const RulerResult result = run(m, options);
  ASSERT_EQ(result.cells.size(), 4u);
  EXPECT_EQ(result.bos, 256);
  for (const RulerSample& s : samples) {
    EXPECT_LE(s.tokens + data::ruler_new_tokens(s.task), s.length);
    EXPECT_EQ(s.score, string_match_all(s.prediction, s.prompt.answers));
  }
  EXPECT_NE(samples[0].prompt.text, samples[1].prompt.text);
  EXPECT_EQ(make_ruler_sample(*text::make_byte_tokenizer(), options, 256, RulerTask::kFrequentWords, 1200, 1).text,
            samples[7].prompt.text);
  options.tasks = {RulerTask::kFrequentWords};
  options.lengths = {1200};
  const std::string before = samples[7].prompt.text + samples[7].prediction;
  samples.clear();
  options.progress = [&](const RulerSample& s, int64_t, int64_t) { samples.push_back(s); };
  run(m, options);
  EXPECT_EQ(samples[1].prompt.text + samples[1].prediction, before);
}

TEST(RulerEval, NanLogitsMakeTheScoresNan) {
  TinyModel m = byte_model();
  m.params.tensors().head.as<float>()[5] = std::numeric_limits<float>::quiet_NaN();
  const RulerResult result = run(m, small());
  for (const RulerCell& cell : result.cells) {
    EXPECT_EQ(cell.score.samples, 2);
    for (const double x : {cell.score.score, cell.score.interval.low, cell.score.interval.high})
      EXPECT_TRUE(std::isnan(x)) << x;
  }
  EXPECT_EQ(result.effective_length, 0);
  for (const double average : result.averages) EXPECT_TRUE(std::isnan(average));
}

// Stopped within the second length, where the tasks take turns.
TEST(RulerEval, KeepsFinishedSamples) {
  const TinyModel m = byte_model();
  RulerOptions options = small();
  options.progress = [](const RulerSample&, int64_t done, int64_t) {
    if (done == 6) request_stop();
  };
  RulerResult result;
  Context cx;
  EXPECT_THROW(ruler(cx, m.spec, m.params.weights(), *text::make_byte_tokenizer(), options, result), Error);
  clear_stop();
  ASSERT_EQ(result.cells.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(result.cells[i].task, options.tasks[i / 2]);
    EXPECT_EQ(result.cells[i].length, options.lengths[i % 2]);
    EXPECT_EQ(result.cells[i].score.samples, i % 2 == 0 ? 2 : 1);
  }
  ASSERT_EQ(result.averages.size(), 2u);
  EXPECT_FALSE(std::isnan(result.averages[0]));
  EXPECT_TRUE(std::isnan(result.averages[1]));
  // Within the first length.
  options.progress = [](const RulerSample&, int64_t done, int64_t) {
    if (done == 1) request_stop();
  };
  RulerResult first;
  EXPECT_THROW(ruler(cx, m.spec, m.params.weights(), *text::make_byte_tokenizer(), options, first), Error);
  clear_stop();
  ASSERT_EQ(first.cells.size(), 1u);
  EXPECT_EQ(first.cell(RulerTask::kFrequentWords, 1100), nullptr);
}

TEST(RulerEval, MistakesAreNamed) {
  const TinyModel m = byte_model();
  const auto message = [](const char* text) { return testing::ThrowsMessage<Error>(testing::HasSubstr(text)); };
  EXPECT_THAT([&] { run(m, {}); }, message("tasks: none given"));
  EXPECT_THAT([&] { run(m, {.tasks = {RulerTask::kFrequentWords}}); }, message("lengths: none given"));
  EXPECT_THAT([&] { run(m, {.tasks = {RulerTask::kFrequentWords}, .lengths = {900}, .samples = 0}); },
              message("samples is 0"));
  EXPECT_THAT([&] { run(m, {.tasks = {RulerTask::kNiahSingle2}, .lengths = {900}}); },
              message("tasks holds niah_single_2, which needs text"));
  EXPECT_THAT(
      [&] {
        run(m, {.tasks = {RulerTask::kNiahSingle1}, .lengths = {4000, 200}});
      },
      message("the shortest prompt takes"));
}

// Twenty prompts with a mean score of 0.25 count as five full successes.
TEST(WilsonOfMean, EqualsTheShareOfSuccesses) {
  const Interval a = wilson_interval_of_mean(0.25, 20), b = wilson_interval(5, 20);
  EXPECT_EQ(a.low, b.low);
  EXPECT_EQ(a.high, b.high);
}

}  // namespace
}  // namespace coca::eval::ruler_test

// The amount of work in a study, and the time that remains.
// SPDX-License-Identifier: Apache-2.0
#include "coca/study/work.h"

#include <gtest/gtest.h>

#include "coca/model/spec.h"
#include "coca/train/config.h"

namespace coca::study::work_test {
namespace {

TEST(WorkMeter, EachKindUsesItsOwnSpeedAndUnstartedKindsTheOthers) {
  double now = 5;
  WorkMeter meter([&] { return now; });
  meter.plan({60, 50, 0});
  meter.plan({40, 0, 0});
  EXPECT_FALSE(meter.seconds_left());
  now += 10;
  meter.advance(Work::kTraining, 20);  // 2 per second: 80 / 2 + 50 / 2
  EXPECT_DOUBLE_EQ(*meter.seconds_left(), 65);
  now += 10;
  meter.advance(Work::kPerplexity, 10);  // 1 per second: 80 / 2 + 40 / 1
  EXPECT_DOUBLE_EQ(*meter.seconds_left(), 80);
  meter.leave_out(Work::kTraining, 1000);
  EXPECT_DOUBLE_EQ(*meter.seconds_left(), 40) << "nothing is left of what was planned, and not less than nothing";
}

TEST(WorkOf, CountsWhatTheModelRuns) {
  StudyConfig c;
  c.methods = {"rope", "alibi"};
  c.ntk_methods = {"rope"};
  c.factors = {2, 4};
  c.layers = 1;
  c.width = 16;
  c.heads = 2;
  c.length = 64;
  c.batch = 2;
  c.steps = 12;
  c.multiples = {1, 2};
  c.passkey_trials = 3;
  c = resolve(c);
  const int64_t documents[] = {100};
  const MethodWork rope = work_of(c, "rope", 257, documents);
  EXPECT_EQ(rope.trained_tokens, 12 * 2 * 64);
  EXPECT_EQ(rope.ppl_tokens, (64 + 36) + 100) << "windows [0, 64) and [64, 100); the document within one of 128";
  EXPECT_EQ(rope.passkey_tokens, 5 * 3 * (64 + 128));
  EXPECT_EQ(rope.evaluations, 3);
  EXPECT_EQ(work_of(c, "alibi", 257, documents).evaluations, 1);
  const model::ModelSpec spec = train::make_spec(train_config(c, "rope", 0, "out"), 257, std::nullopt, std::nullopt);
  EXPECT_EQ(rope.parameters, model::parameter_count(spec));
  EXPECT_DOUBLE_EQ(rope.flops[0], 3.0 * 12 * 2 * 64 * model::forward_flops_per_token(spec, 64));
  EXPECT_DOUBLE_EQ(rope.flops[1],
                   100 * model::forward_flops_per_token(spec, 64) + 100 * model::forward_flops_per_token(spec, 128));
  EXPECT_DOUBLE_EQ(rope.all()[1], 3 * rope.flops[1]);
  EXPECT_GT(rope.memory, 16 * rope.parameters);
  c.passkey_share = 0;
  EXPECT_EQ(work_of(c, "rope", 257, documents).passkey_tokens, 0);
}

}  // namespace
}  // namespace coca::study::work_test

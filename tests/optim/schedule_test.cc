// SPDX-License-Identifier: Apache-2.0
#include "coca/optim/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace coca::optim::schedule_test {
namespace {

constexpr Decay kDecays[] = {Decay::kConstant, Decay::kLinear, Decay::kCosine};

Schedule schedule(Decay decay) {
  return {.decay = decay, .peak = 1e-3, .floor = 1e-4, .warmup_steps = 4, .total_steps = 21};
}

TEST(Schedule, WarmsUpFromThePeakOverWToThePeak) {
  for (const Decay decay : kDecays)
    for (int64_t step = 0; step < 4; ++step)
      EXPECT_DOUBLE_EQ(learning_rate(schedule(decay), step), 1e-3 * static_cast<double>(step + 1) / 4) << step;
}

TEST(Schedule, DecaysFromThePeakToTheFloor) {
  for (const Decay decay : kDecays) {
    const double floor = decay == Decay::kConstant ? 1e-3 : 1e-4;
    EXPECT_DOUBLE_EQ(learning_rate(schedule(decay), 4), 1e-3);
    EXPECT_DOUBLE_EQ(learning_rate(schedule(decay), 20), floor);
    EXPECT_DOUBLE_EQ(learning_rate(schedule(decay), 1000), floor);  // a longer resumed run stays at the floor
    // Halfway (step 12 of 4..20) linear and cosine decay have the same value; after a quarter they do not.
    EXPECT_DOUBLE_EQ(learning_rate(schedule(decay), 12), (1e-3 + floor) / 2);
    for (int64_t step = 5; step < 21; ++step)
      EXPECT_LE(learning_rate(schedule(decay), step), learning_rate(schedule(decay), step - 1)) << step;
  }
  EXPECT_DOUBLE_EQ(learning_rate(schedule(Decay::kLinear), 8), 1e-3 - 0.25 * 9e-4);
  EXPECT_DOUBLE_EQ(learning_rate(schedule(Decay::kCosine), 8), 1e-4 + 9e-4 * (1 + std::sqrt(0.5)) / 2);
}

TEST(Schedule, CornersAreFinite) {
  for (const Decay decay : kDecays) {
    EXPECT_EQ(learning_rate({.decay = decay, .peak = 1e-3, .floor = 0, .warmup_steps = 0, .total_steps = 1}, 0), 1e-3);
    const Schedule no_warmup{.decay = decay, .peak = 1e-3, .floor = 0, .warmup_steps = 0, .total_steps = 2};
    EXPECT_EQ(learning_rate(no_warmup, 0), 1e-3);
    EXPECT_NEAR(learning_rate(no_warmup, 1), decay == Decay::kConstant ? 1e-3 : 0.0, 1e-18);
    // A warm-up longer than the run never reaches the peak.
    const Schedule only_warmup{.decay = decay, .peak = 1e-3, .floor = 0, .warmup_steps = 10, .total_steps = 5};
    EXPECT_DOUBLE_EQ(learning_rate(only_warmup, 4), 5e-4);
  }
}

TEST(Schedule, BadValuesAreNamed) {
  const auto expect_error = [](const Schedule& s, const char* text) {
    EXPECT_THAT([&] { check_schedule(s); }, testing::ThrowsMessage<Error>(testing::HasSubstr(text)));
  };
  expect_error({.peak = 0}, "learning_rate is 0");
  expect_error({.peak = std::numeric_limits<double>::quiet_NaN()}, "learning_rate is nan");
  expect_error({.peak = 1e-3, .floor = 2e-3}, "min_learning_rate is 0.002");
  expect_error({.peak = 1e-3, .floor = -1}, "min_learning_rate is -1");
  expect_error({.warmup_steps = -1}, "warmup_steps is -1");
  expect_error({.total_steps = 0}, "steps is 0");
  EXPECT_NO_THROW(check_schedule({.peak = 1e-3, .floor = 1e-3}));
}

}  // namespace
}  // namespace coca::optim::schedule_test

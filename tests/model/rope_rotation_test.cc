// SPDX-License-Identifier: Apache-2.0
#include "coca/model/rope_rotation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "support/reference_angles.h"
#include "support/tiny_model.h"

namespace coca::model::rope_rotation_test {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

ModelSpec spec_of(int64_t R, double base, int64_t L, RopeScaling scaling) {
  ModelSpec s = test::tiny_neox(AttentionKind::kRope);
  s.D = s.R = R;
  s.rope_theta = base;
  s.max_position = L;
  s.rope_scaling = std::move(scaling);
  return s;
}

// The second implementation agrees for every scaling, kind and length on both sides of the original context. Two or
// three roundings of pow, log and a mix: 1e-14 of the value.
TEST(RopeRotation, AgreesWithTheSecondImplementation) {
  for (const Scaling scaling : test::weightless_scalings())
    for (const AttentionKind kind : test::attention_kinds()) {
      if (!uses_rotary(kind) && scaling != Scaling::kNone) continue;
      ModelSpec s = spec_of(16, 5e4, 8, test::tiny_scaling(scaling, 8));
      s.attention = kind;
      validate(s);
      for (const int64_t n : {1, 8, 9, 100}) {
        SCOPED_TRACE(std::string(enum_name(scaling)) + " " + std::string(enum_name(kind)) + " " + std::to_string(n));
        const ops::Rotation got = rope_rotation(s, n);
        const test::ReferenceAngles wanted = test::reference_angles(s, n);
        EXPECT_NEAR(got.amplitude, wanted.size, 1e-14);
        ASSERT_EQ(got.frequencies.size(), wanted.theta.size());
        for (size_t j = 0; j < wanted.theta.size(); ++j)
          EXPECT_NEAR(got.frequencies[j], wanted.theta[j], 1e-14 * wanted.theta[j]);
        ASSERT_EQ(got.growth.size(), wanted.zeta.size());
        for (size_t j = 0; j < wanted.zeta.size(); ++j)
          EXPECT_NEAR(std::exp(512 * got.growth[j]), wanted.zeta[j], 1e-13);
      }
    }
}

// Published frequencies of LLaMA 3, to six digits (base 5e5, 128 dims, factor 8 of 8192).
TEST(RopeRotation, Llama3sKnownFrequencies) {
  const auto f =
      rope_rotation(
          spec_of(128, 500000.0, 131072, {.type = Scaling::kLlama3, .factor = 8, .original_max_position = 8192}), 1)
          .frequencies;
  const std::pair<size_t, double> known[] = {
      {0, 1.0}, {20, 0.01656044}, {30, 0.00137189357}, {35, 9.5562124e-05}, {40, 3.4281022e-05}, {63, 3.06893e-07}};
  for (const auto& [j, value] : known) EXPECT_NEAR(f[j], value, 2e-6 * value) << j;
}

// The borders of YaRN's ramp for known models: pairs up to low keep their frequency, pairs from high on are divided by
// the factor.
TEST(RopeRotation, YarnsKnownBorders) {
  const struct {
    int64_t R, L;
    size_t low, high;
  } known[] = {{128, 2048, 16, 41}, {128, 4096, 20, 46}, {64, 512, 3, 16}};
  for (const auto& k : known) {
    const auto scaled = rope_rotation(spec_of(k.R, 1e4, k.L, {.type = Scaling::kYarn, .factor = 4}), 1);
    const auto plain = rope_rotation(spec_of(k.R, 1e4, k.L, {}), 1);
    EXPECT_NEAR(scaled.amplitude, 0.1 * std::log(4.0) + 1, 1e-15);
    EXPECT_EQ(scaled.frequencies[k.low], plain.frequencies[k.low]);
    EXPECT_LT(scaled.frequencies[k.low + 1], plain.frequencies[k.low + 1]);
    EXPECT_DOUBLE_EQ(scaled.frequencies[k.high], plain.frequencies[k.high] / 4);
    EXPECT_GT(scaled.frequencies[k.high - 1], plain.frequencies[k.high - 1] / 4);
  }
}

// NTK keeps the first pair and divides the last by exactly the factor.
TEST(RopeRotation, NtkLeavesTheFirstPairAndDividesTheLast) {
  const auto scaled = rope_rotation(spec_of(64, 1e4, 512, {.type = Scaling::kNtk, .factor = 8}), 1).frequencies;
  const auto plain = rope_rotation(spec_of(64, 1e4, 512, {}), 1).frequencies;
  EXPECT_EQ(scaled.front(), 1.0);
  EXPECT_NEAR(scaled.back() * 8, plain.back(), 1e-14 * plain.back());
}

// Phi-3's amplitude at 128k is sqrt(1 + ln 32 / ln 4096) = 1.1902; DeepSeek's is a quotient of two mscales. An explicit
// value takes precedence.
TEST(RopeRotation, Amplitudes) {
  RopeScaling longrope{.type = Scaling::kLongRope, .factor = 32, .original_max_position = 4096};
  longrope.short_factor = longrope.long_factor = std::vector<double>(4, 1.0);
  EXPECT_NEAR(rope_rotation(spec_of(8, 1e4, 131072, longrope), 1).amplitude, 1.1902, 5e-5);
  RopeScaling yarn{.type = Scaling::kYarn, .factor = 40};
  yarn.mscale = 0.707;
  yarn.mscale_all_dim = 1.0;
  const double g = std::log(40.0);
  EXPECT_NEAR(rope_rotation(spec_of(8, 1e4, 4096, yarn), 1).amplitude, (0.0707 * g + 1) / (0.1 * g + 1), 1e-14);
  yarn.attention_factor = 1.5;
  EXPECT_EQ(rope_rotation(spec_of(8, 1e4, 4096, yarn), 1).amplitude, 1.5);
}

TEST(RopeRotation, ImpossibleNumbersAreNamed) {
  const auto error = [](RopeScaling r, const char* text) {
    EXPECT_THAT([&] { validate(r, 4); }, ThrowsMessage<Error>(HasSubstr(text)));
  };
  error({.type = Scaling::kNtk, .factor = 0.5}, "ntk has factor 0.5; expected 1 to 1e6");
  error({.type = Scaling::kDynamic, .factor = 1e308}, "dynamic has factor 1e+308");
  error({.type = Scaling::kYarn, .factor = 2, .beta_fast = 1e308}, "yarn has beta_fast 1e+308; expected 1e-06 to 1e6");
  error({.type = Scaling::kYarn, .factor = 2, .beta_slow = 1e-320}, "yarn has beta_slow");
  error({.type = Scaling::kLlama3, .factor = 2, .high_freq_factor = 1e308}, "llama3 has high_freq_factor 1e+308");
  error({.type = Scaling::kYarn, .factor = 2, .mscale = -1}, "yarn has mscale -1; expected 0 to 1e6");
  error({.type = Scaling::kLongRope, .factor = 2, .short_factor = {1, 1, 1, 1e-320}, .long_factor = {1, 1, 1, 1}},
        "in short_factor; expected positive numbers");
  error({.type = Scaling::kYarn, .factor = 2, .beta_fast = 1, .beta_slow = 2},
        "0 < beta_slow < beta_fast, found 2 and 1");
  error({.type = Scaling::kLongRope, .factor = 2, .short_factor = {1, 1, 1, 1}, .long_factor = {1, 1}},
        "2 numbers in long_factor; expected 4");
  error({.type = Scaling::kLongRope, .factor = 2, .short_factor = {1, 1, 1, -1}, .long_factor = {1, 1, 1, 1}},
        "-1 in short_factor");
  ModelSpec alibi = test::tiny_neox(AttentionKind::kAlibi);
  alibi.rope_scaling = {.type = Scaling::kLinear, .factor = 2};
  EXPECT_THAT([&] { validate(alibi); }, ThrowsMessage<Error>(HasSubstr("needs rotary positions")));
  EXPECT_THAT([&] { with_scaling(test::tiny_neox(AttentionKind::kRope), Scaling::kYarn, {}); },
              ThrowsMessage<Error>(HasSubstr("needs a factor")));
  EXPECT_THAT([&] { with_scaling(test::tiny_neox(AttentionKind::kRope), Scaling::kLongRope, 2.0); },
              ThrowsMessage<Error>(HasSubstr("config.json")));
  EXPECT_THAT([&] { growth_origin(test::tiny_neox(AttentionKind::kXpos), 0, 65537); },
              ThrowsMessage<Error>(HasSubstr("65536")));
}

}  // namespace
}  // namespace coca::model::rope_rotation_test

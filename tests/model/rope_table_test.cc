// SPDX-License-Identifier: Apache-2.0
#include "coca/model/rope_table.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/tiny_model.h"

namespace coca::model::rope_table_test {
namespace {

ModelSpec spec_of(int64_t R, Scaling scaling, double factor, int64_t max_position = 512) {
  ModelSpec s = test::tiny_neox(AttentionKind::kRope);
  s.D = R + 4;
  s.R = R;
  s.max_position = max_position;
  s.rope_scaling = {scaling, factor};
  return s;
}

std::vector<double> frequencies_of(const ModelSpec& s, int64_t seq_len) {
  return rope_rotation(s, seq_len).frequencies;
}

// base (factor n / L - (factor - 1))^(R / (R - 2)) for R = 64, base 1e4, factor 4, L = 512, computed independently.
TEST(RopeTable, DynamicBasesAreTheKnownOnes) {
  const ModelSpec s = spec_of(64, Scaling::kDynamic, 4.0);
  EXPECT_EQ(rope_base(s, 1), 10000.0);
  EXPECT_EQ(rope_base(s, 512), 10000.0);
  EXPECT_GT(rope_base(s, 513), 10000.0);
  const std::pair<int64_t, double> known[] = {{1024, 52664},  {2048, 141214},   {4096, 323275},
                                              {8192, 696500}, {16384, 1460671}, {32768, 3024409}};
  for (const auto& [length, base] : known) EXPECT_NEAR(rope_base(s, length), base, 0.5) << length;
  // Factor 1 is plain dynamic NTK: base (n / L)^(R / (R - 2)).
  EXPECT_NEAR(rope_base(spec_of(64, Scaling::kDynamic, 1.0), 1024), 10000 * std::pow(2.0, 64.0 / 62.0), 1e-6);
}

TEST(RopeTable, FrequenciesOfEachScaling) {
  const std::vector<double> plain = frequencies_of(spec_of(8, Scaling::kNone, 1.0), 2048);
  ASSERT_EQ(plain.size(), 4u);
  for (size_t j = 0; j < 4; ++j) EXPECT_NEAR(plain[j], std::pow(10.0, -static_cast<double>(j)), 1e-15);  // 1e4^(-2j/8)
  const std::vector<double> linear = frequencies_of(spec_of(8, Scaling::kLinear, 4.0), 2048);
  for (size_t j = 0; j < 4; ++j) EXPECT_DOUBLE_EQ(linear[j], plain[j] / 4);
  // Dynamic NTK keeps the first frequency and divides the last by the total stretch, 4 * 2048 / 512 - 3 = 13.
  const std::vector<double> dynamic = frequencies_of(spec_of(8, Scaling::kDynamic, 4.0), 2048);
  EXPECT_EQ(dynamic[0], 1.0);
  EXPECT_NEAR(dynamic[3], plain[3] / 13, 1e-15);
  EXPECT_LT(dynamic[1], plain[1]);
  EXPECT_EQ(frequencies_of(spec_of(8, Scaling::kDynamic, 4.0), 512), plain);
}

// A single rotary pair has frequency 1 for any base; R / (R - 2) is undefined.
TEST(RopeTable, OnePairIsNotStretched) {
  EXPECT_EQ(rope_base(spec_of(2, Scaling::kDynamic, 4.0), 4096), 10000.0);
  EXPECT_EQ(frequencies_of(spec_of(2, Scaling::kDynamic, 4.0), 4096), std::vector<double>{1.0});
}

void expect_rows(const ModelSpec& s, const ops::RopeRows& rows, int64_t start, int64_t n, int64_t seq_len) {
  const std::vector<double> theta = frequencies_of(s, seq_len);
  const auto cos = rows.cos.view<float, 3>(), sin = rows.sin.view<float, 3>();
  ASSERT_EQ(rows.cos.shape, Dims({1, n, s.R / 2}));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < s.R / 2; ++j) {
      // The angle is computed in double, so the entry is within half a float ulp of it plus the double's own rounding:
      // position 32768 eps(double) = 4e-12.
      const auto angle = static_cast<long double>(start + i) * static_cast<long double>(theta[static_cast<size_t>(j)]);
      ASSERT_NEAR(cos(0, i, j), static_cast<double>(std::cos(angle)), 6.1e-8) << start + i << " " << j;
      ASSERT_NEAR(sin(0, i, j), static_cast<double>(std::sin(angle)), 6.1e-8) << start + i << " " << j;
    }
}

TEST(RopeTable, RowsAreCosAndSinEvenFarOut) {
  const ModelSpec s = spec_of(16, Scaling::kNone, 1.0);
  RopeTable table;
  table.build(rope_rotation(s, 40), 0, 40);
  expect_rows(s, table.rows(0, 40), 0, 40, 40);
  expect_rows(s, table.rows(7, 20), 7, 20, 40);
  table.build(rope_rotation(s, 32768), 32700, 68);
  expect_rows(s, table.rows(0, 68), 32700, 68, 32768);
}

// A table is reused only if it is still valid: other lengths have other frequencies, other starts have other rows.
TEST(RopeTable, RebuildsWhenNecessary) {
  const ModelSpec s = spec_of(16, Scaling::kDynamic, 4.0);
  RopeTable table;
  const auto check = [&](int64_t start, int64_t n, int64_t seq_len) {
    table.build(rope_rotation(s, seq_len), start, n);
    expect_rows(s, table.rows(0, n), start, n, seq_len);
  };
  check(0, 600, 600);
  check(0, 500, 500);
  check(0, 600, 700);
  check(0, 300, 700);  // fewer rows, the same table
  check(5, 10, 700);
  check(0, 1000, 1000);
  check(0, 20, 20);
  check(0, 400, 400);  // more rows than in the last build, but within the capacity
}

}  // namespace
}  // namespace coca::model::rope_table_test

// Attention rows and CoCA's figures against closed forms.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>

#include "coca/analyse/attention_stats.h"
#include "coca/analyse/collinear_stats.h"
#include "support/numerics.h"

namespace coca::analyse::head_stats_test {
namespace {

constexpr double kRounding = 1e-12;  // sums of about ten doubles of size 1 to 10

TEST(AttentionStats, EqualScoresGiveTheEntropyOfAllKeys) {
  AttentionStats s(8);
  std::vector<double> scores(8, 3.25);
  s.add_row(scores, 0);
  EXPECT_NEAR(s.mean_entropy(), std::log(8.0), kRounding);
  EXPECT_NEAR(s.mean_entropy_share(), 1, kRounding);
  EXPECT_NEAR(s.mean_first_token(), 1.0 / 8, kRounding);
  EXPECT_NEAR(s.mean_sink(), 0.5, kRounding);
  EXPECT_NEAR(s.mean_distance(), 3.5, kRounding);
  const double octaves[] = {1, 1, 2, 4};  // distances 0; 1; 2, 3; 4 .. 7
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(s.mass_share(i), octaves[i] / 8, kRounding) << i;
  EXPECT_EQ(s.mean_score(2), 3.25);
}

TEST(AttentionStats, AHeadThatSeesOnlyTheFirstTokenIsASink) {
  AttentionStats s(6);
  std::vector<double> scores = {900, 0, 0, 0, 0, 0};
  s.add_row(scores, 0);
  EXPECT_EQ(s.mean_first_token(), 1);
  EXPECT_EQ(s.mean_sink(), 1);
  EXPECT_EQ(s.mean_entropy(), 0);
  EXPECT_EQ(s.mean_distance(), 5);
  std::vector<double> windowed(3, 0);  // keys 10, 11, 12: a sliding window that has moved past the first tokens
  AttentionStats w(20);
  w.add_row(windowed, 10);
  EXPECT_EQ(w.mean_sink(), 0);
  std::vector<double> alone = {5};
  w.add_row(alone, 0);
  EXPECT_NEAR(w.mean_entropy_share(), 1, kRounding) << "a row of one key has no choice and does not count";
  EXPECT_NEAR(w.mean_entropy(), std::log(3.0) / 2, kRounding);
}

std::vector<Rotation> rotations(double position) {
  return {std::polar(1.0, position), std::polar(1.0, position * 0.1)};
}

// Slack is the dot product of the op's outputs, and strict - slack is the formula of docs/math/collinear.md.
TEST(Collinear, ScoresAreThoseOfTheOp) {
  const std::vector<float> q = test::random_values(4, 1), t = test::random_values(4, 2);
  for (const ops::Collinear kind : {ops::Collinear::kSlack, ops::Collinear::kStrict}) {
    const auto at = [&](double position) {
      const std::vector<Rotation> r = rotations(position);
      Tensor cos({1, 1, 2}), sin({1, 1, 2});
      for (size_t j = 0; j < 2; ++j)
        cos.values<float>()[j] = static_cast<float>(r[j].real()),
        sin.values<float>()[j] = static_cast<float>(r[j].imag());
      Tensor q_eff({1, 1, 1, 4}), k_eff({1, 1, 1, 4});
      Context cx;
      ops::collinear_forward(cx, {.kind = kind},
                             {.rows = {cos, sin},
                              .q = {q.data(), DType::kF32, {1, 1, 1, 4}, kHost},
                              .t = {t.data(), DType::kF32, {1, 1, 1, 4}, kHost},
                              .q_eff = q_eff,
                              .k_eff = k_eff});
      return std::pair(std::move(q_eff), std::move(k_eff));
    };
    const auto query = at(5), key = at(2);
    double expected = 0, ours = 0, formula = 0, difference = 0;
    for (size_t i = 0; i < 4; ++i)
      expected +=
          static_cast<double>(query.first.values<float>()[i]) * static_cast<double>(key.second.values<float>()[i]);
    for (size_t j = 0; j < 2; ++j) {
      const Plane p{q[j], q[j + 2]};
      const double tbar = std::max(0.0, (static_cast<double>(t[j]) + static_cast<double>(t[j + 2])) / 2);
      const Rotation m = rotations(5)[j], n = rotations(2)[j];
      ours += kind == ops::Collinear::kSlack ? slack_score(p, tbar, m, n) : strict_score(p, tbar, m, n);
      difference += strict_score(p, tbar, m, n) - slack_score(p, tbar, m, n);
      formula +=
          tbar * ((p.a * p.a - p.b * p.b) * m.real() * n.imag() + (p.a - p.b) * (p.a - p.b) * m.imag() * n.imag());
    }
    ASSERT_NE(expected, 0) << "MISTRUSTED: t is zero in every plane";
    EXPECT_NEAR(ours, expected, 2e-6);  // four products of floats of size up to 2, each rounded a few times (6e-8)
    EXPECT_NEAR(difference, formula, kRounding);
  }
}

TEST(Collinear, DepartureAndShifts) {
  const std::vector<float> q = {0.5f, -1.0f, 1.5f, 0.25f}, even = {0.5f, -1.0f, 0.5f, -1.0f}, tbar = {0.75f, 0.5f};
  const std::vector<Rotation> m = rotations(9), n = rotations(4);
  const std::vector<std::vector<Rotation>> shifts = {rotations(0), rotations(3)};
  const auto stats = [&](ops::Collinear kind, const std::vector<float>& query) {
    CollinearStats s(shifts.size());
    s.add_pair(kind, {.q = query.data(), .tbar = tbar.data(), .query = m, .key = n}, shifts);
    return s;
  };
  double strict = 0, slack = 0, moved = 0;
  for (size_t j = 0; j < 2; ++j) {
    const Plane p{q[j], q[j + 2]};
    strict += strict_score(p, tbar[j], m[j], n[j]);
    slack += slack_score(p, tbar[j], m[j], n[j]);
    moved += slack_score(p, tbar[j], rotations(12)[j], rotations(7)[j]);
  }
  const CollinearStats s = stats(ops::Collinear::kSlack, q);
  EXPECT_NEAR(s.departure(), std::abs(strict - slack) / std::abs(strict), kRounding);
  EXPECT_GT(s.departure(), 0.01);
  EXPECT_EQ(s.moved_departure(0), 0);
  EXPECT_NEAR(s.moved_departure(1), std::abs(moved - slack) / std::abs(slack), kRounding);
  EXPECT_GT(s.moved_departure(1), 0.01);
  EXPECT_NEAR(stats(ops::Collinear::kStrict, q).moved_departure(1), 0, kRounding) << "strict knows distances only";
  EXPECT_NEAR(stats(ops::Collinear::kTied, q).departure(), 0, kRounding) << "tied is the strict form of the tied q";
  EXPECT_NEAR(stats(ops::Collinear::kSlack, even).departure(), 0, kRounding) << "slack with equal halves is tied";
}

}  // namespace
}  // namespace coca::analyse::head_stats_test

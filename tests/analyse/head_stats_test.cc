// Attention rows and CoCA's figures against closed forms.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>

#include "coca/analyse/attention_stats.h"
#include "coca/analyse/collinear_stats.h"
#include "coca/analyse/induction.h"
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

TEST(InductionStats, EarlierPlacesAreTheMostRecent) {
  const std::vector<int32_t> ids = {7, 3, 7, 7, 5, 3};
  EXPECT_EQ(earlier_places(ids), (std::vector<int64_t>{-1, -1, 0, 2, -1, 1}));
  EXPECT_TRUE(earlier_places({}).empty());
}

TEST(InductionStats, AddUpTheAttentionOnThreeKeys) {
  InductionStats s;
  s.add_row(std::vector<double>{1}, 0, -1);  // the first row has no token before
  EXPECT_EQ(s.rows, 0);
  s.add_row(std::vector<double>{0.1, 0.2, 0.3, 0.4}, 0, 0);  // its token stood at 0, and 1 followed
  s.add_row(std::vector<double>{0.5, 0.1, 0.4}, 0, -1);      // a new token
  s.add_row(std::vector<double>{0.5, 0.2, 0.3}, 0, 1);       // the token before is the same: no repeat
  s.add_row(std::vector<double>{0.6, 0.4}, 10, 3);           // keys 10 and 11: the earlier token is out of sight
  EXPECT_EQ(s.rows, 4);
  EXPECT_EQ(s.repeats, 2);
  EXPECT_NEAR(s.mean_previous(), (0.3 + 0.1 + 0.2 + 0.6) / 4, kRounding);
  EXPECT_NEAR(s.mean_induction(), 0.2 / 2, kRounding);
  EXPECT_NEAR(s.mean_duplicate(), 0.1 / 2, kRounding);
  EXPECT_NEAR(s.mean_previous_chance(), (1.0 / 4 + 2.0 / 3 + 1.0 / 2) / 4, kRounding);
  EXPECT_NEAR(s.mean_repeat_chance(), (1.0 / 4 + 1.0 / 2) / 2, kRounding);
  InductionStats twice = s;
  twice.add(s);
  EXPECT_EQ(twice.repeats, 4);
  EXPECT_NEAR(twice.mean_induction(), s.mean_induction(), kRounding);
  EXPECT_TRUE(std::isnan(InductionStats().mean_previous()));
}

// Keys that are +-1 in each of n directions in turn have the covariance I / n.
ContentStats even_keys(size_t n, double mean) {
  ContentStats s(1, n);
  for (size_t i = 0; i < n; ++i)
    for (const double sign : {1.0, -1.0}) {
      std::vector<double> k(n, mean);
      k[i] += sign;
      s.add_key(k);
    }
  return s;
}

TEST(ContentStats, ChannelsAreTheDirectionsInWhichScoresVary) {
  for (const double mean : {0.0, 3.0}) {  // what all keys share does not count
    ContentStats all = even_keys(6, mean), one = even_keys(6, mean), uneven = even_keys(2, mean);
    for (size_t i = 0; i < 6; ++i) {
      std::vector<double> q(6);
      q[i] = 2;
      all.add_query(q);
    }
    one.add_query(std::vector<double>(6, 1.0));  // one direction, however many values
    uneven.add_query(std::vector<double>{2, 0});
    uneven.add_query(std::vector<double>{0, 1});
    EXPECT_NEAR(all.channels(), 6, 1e-10);
    EXPECT_NEAR(all.variance(), 4.0 / 6, 1e-10);  // q . q / 6
    EXPECT_NEAR(one.channels(), 1, 1e-10);
    EXPECT_NEAR(one.variance(), 1, 1e-10);
    EXPECT_NEAR(uneven.channels(), 25.0 / 17, 1e-10);  // variances 4 and 1: (4 + 1)^2 / (16 + 1)
  }
  EXPECT_TRUE(std::isnan(ContentStats(1, 2).channels()));
}

TEST(ContentStats, SlowShareIsThatOfTheVarianceOverPairs) {
  ContentStats s(2, 1);
  for (const double sign : {1.0, -1.0}) s.add_pair(std::vector<double>{7 + sign, 2 * sign}, 3 * sign);
  EXPECT_NEAR(s.slow_share(std::vector<char>{1, 0}), (1 + 9) / 14.0, kRounding);  // variances 1, 4, unrotated 9
  EXPECT_NEAR(s.slow_share(std::vector<char>{0, 0}), 9 / 14.0, kRounding);
  ContentStats twice = s;
  twice.add(s);
  EXPECT_NEAR(twice.slow_share(std::vector<char>{1, 0}), 10 / 14.0, kRounding);
}

TEST(DistanceChoice, IsTheSoftmaxOfScores) {
  const DistanceChoice c = distance_choice(std::vector<double>{std::log(2.0), std::log(5.0), std::log(3.0)});
  EXPECT_EQ(c.best, 1);
  EXPECT_NEAR(c.best_share, 0.5, kRounding);
  EXPECT_NEAR(c.previous, 0.5, kRounding);
  EXPECT_EQ(distance_choice(std::vector<double>{1e6}).previous, 0);
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

// Angles, courses and borders of planes with known answers, and agreement of the sign convention with the rotation ops.
// SPDX-License-Identifier: Apache-2.0
#include "coca/analyse/angles.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "coca/analyse/borders.h"
#include "coca/analyse/sample.h"
#include "coca/model/rope_table.h"
#include "coca/ops/rope.h"
#include "support/tiny_model.h"

namespace coca::analyse::angles_test {
namespace {

constexpr double kPi = std::numbers::pi;
constexpr double kRounding = 1e-12;  // angles up to 2 pi through atan2, fmod and a product up to 1e3: about 1e-13

Plane turned(Plane p, double angle) {
  return {p.a * std::cos(angle) - p.b * std::sin(angle), p.b * std::cos(angle) + p.a * std::sin(angle)};
}

// k is q turned by phi. The angle from the key back to the query is -phi at any two positions.
TEST(PlanePair, KeyTurnedByPhiHasAngleMinusPhi) {
  const Plane q{0.3, -1.1};
  for (const double phi : {0.0, 0.4, 2.0, 3.5, 6.0}) {
    const Plane k = turned({2 * q.a, 2 * q.b}, phi);
    for (const double theta : {1.0, 0.01}) {
      const PlanePair p = plane_pair(turned(q, 90 * theta), turned(k, 40 * theta), 50 * theta);
      EXPECT_NEAR(std::cos(p.angle - (kTurn - phi)), 1, kRounding) << phi;
      EXPECT_NEAR(std::sin(p.angle - (kTurn - phi)), 0, kRounding) << phi;
      EXPECT_GE(p.angle, 0);
      EXPECT_LT(p.angle, kTurn);
      EXPECT_NEAR(p.weight, 2 * (0.09 + 1.21), kRounding);
    }
  }
}

// The rotation of ops/rope.h at positions m and n gives |q||k| cos(angle + (m - n) theta).
TEST(PlanePair, FormulaIsTheScoreOfTheRotationOp) {
  model::ModelSpec spec = test::tiny_llama(model::AttentionKind::kRope);
  spec.H = spec.G = 1;
  spec.D = spec.R = 2;
  const int64_t m = 7, n = 3;
  model::RopeTable table;
  table.build(plane_rotation(spec, 8), 0, 8);
  Tensor x({1, 8, 1, 2}), y({1, 8, 1, 2});
  x.values<float>()[2 * m] = 0.7f;
  x.values<float>()[2 * m + 1] = 0.2f;
  x.values<float>()[2 * n] = -0.4f;
  x.values<float>()[2 * n + 1] = 0.9f;
  Context cx;
  ops::rope_forward(cx, {.rows = table.rows(0, 8), .x = x, .y = y});
  const auto v = y.values<float>();
  const Plane q{v[2 * m], v[2 * m + 1]}, k{v[2 * n], v[2 * n + 1]};
  const double theta = plane_rotation(spec, 8).frequencies[0];
  const PlanePair p = plane_pair(q, k, static_cast<double>(m - n) * theta);
  // Before rotation q is at the angle atan2(0.2, 0.7) and k at atan2(0.9, -0.4). Floats of size 1: a few times 6e-8.
  EXPECT_NEAR(p.angle, wrapped(std::atan2(0.2, 0.7) - std::atan2(0.9, -0.4)), 1e-6);
  EXPECT_NEAR(p.weight * std::cos(p.angle + 4 * theta), q.a * k.a + q.b * k.b, 1e-12);
}

TEST(Angles, RoundingNearAFullTurnIsZero) {
  EXPECT_EQ(snapped(kTurn - 1e-8, 1e-6), 0);
  EXPECT_EQ(snapped(1e-8, 1e-6), 0);
  EXPECT_EQ(snapped(kTurn - 1e-4, 1e-6), kTurn - 1e-4);
  EXPECT_EQ(wrapped(-1e-18), 0);
  EXPECT_NEAR(wrapped(-0.5 - 3 * kTurn), kTurn - 0.5, kRounding);
}

// Finds tau by brute force, following the score token by token (theta is small compared with 1).
TEST(Course, AgreesWithScoresFollowedTokenByToken) {
  const double theta = 0.001, length = 2000;
  for (double angle = 0.05; angle < kTurn; angle += 0.1) {
    int64_t first_turn = 0;  // tokens until the score first changes direction
    const bool rises = std::cos(angle + theta) > std::cos(angle);
    while ((std::cos(angle + static_cast<double>(first_turn + 1) * theta) >
            std::cos(angle + static_cast<double>(first_turn) * theta)) == rises)
      ++first_turn;
    const auto turn = static_cast<double>(first_turn);
    const Course expected = rises ? (turn < length ? Course::kRisesThenFalls : Course::kRises)
                                  : (turn < length ? Course::kFallsThenRises : Course::kFalls);
    EXPECT_EQ(course_of(angle, theta, length), expected) << angle;
    EXPECT_NEAR(rising_tokens(angle, theta), rises ? turn : 0, 1) << angle;
  }
}

TEST(Borders, PassesOfPiByHand) {
  EXPECT_EQ(opposite_passed(0, 3.0), 0);
  EXPECT_EQ(opposite_passed(0, 3.2), 1);
  EXPECT_EQ(opposite_passed(0, 3 * kPi - 0.01), 1);
  EXPECT_EQ(opposite_passed(0, 3 * kPi + 0.01), 2);
  EXPECT_EQ(opposite_passed(kPi + 0.1, kTurn - 0.2), 0);
  EXPECT_EQ(opposite_passed(kPi - 0.1, 0.2), 1);
}

TEST(Borders, UnseenShareByHand) {
  EXPECT_EQ(unseen_share(kTurn, 100), 0);                                             // it went full circle
  EXPECT_EQ(unseen_share(1, 1), 0);                                                   // the trained length itself
  EXPECT_NEAR(unseen_share(1, 4), 0.75, kRounding);                                   // angles from 1 to 4 are new
  EXPECT_NEAR(unseen_share(1, kTurn + 0.5), (kTurn - 1) / (kTurn + 0.5), kRounding);  // 0.5 of the second turn is known
  EXPECT_NEAR(unseen_share(1, kTurn + 3), (kTurn - 1 + 2) / (kTurn + 3), kRounding);
}

// One fast and one slow plane: theta = 1 and 10000^(-1/2) = 0.01, with lengths L = 100 and 4 L.
TEST(Borders, ScalingsOfTwoPlanesByHand) {
  model::ModelSpec spec = test::tiny_llama(model::AttentionKind::kRope);
  spec.D = spec.R = 4;
  spec.max_position = 100;
  std::vector<AngleStats> angles(2);
  for (AngleStats& a : angles) a.add({.angle = 0.02, .weight = 1}, Course::kFalls);  // the centre of its bin is 0.044
  const std::vector<ScaledBorders> all = scaled_borders(spec, angles, {.multiples = {4}, .dynamic_factor = 2});
  const auto of = [&](model::Scaling type) {
    const auto at =
        std::find_if(all.begin(), all.end(), [&](const ScaledBorders& b) { return b.scaling.type == type; });
    EXPECT_NE(at, all.end());
    return *at;
  };
  const ScaledBorders none = of(model::Scaling::kNone), linear = of(model::Scaling::kLinear),
                      dynamic = of(model::Scaling::kDynamic), ntk = of(model::Scaling::kNtk);
  EXPECT_EQ(none.planes[0].opposite, std::floor((400 + 0.044 + kPi) / kTurn));  // 64 passes
  EXPECT_EQ(none.planes[1].opposite, 1);  // a sweep through 4 radians passes pi once
  EXPECT_EQ(none.unseen_planes(), 1);
  EXPECT_NEAR(none.planes[1].unseen, 0.75, kRounding);
  EXPECT_EQ(none.compressed_planes(), 0);
  EXPECT_EQ(linear.unseen_planes(), 0);
  EXPECT_EQ(linear.planes[1].opposite, 0);
  EXPECT_NEAR(linear.planes[0].compression, 4, kRounding);
  EXPECT_EQ(linear.compressed_planes(), 1);  // the fast one; the slow one never went full circle
  // base' = base (2 * 4 - 1)^(4 / 2): the fast plane is unchanged, the slow one turns 7 times more slowly.
  EXPECT_NEAR(dynamic.planes[0].compression, 1, kRounding);
  EXPECT_NEAR(dynamic.planes[1].compression, 7, 1e-11);
  EXPECT_NEAR(ntk.planes[1].compression, 4, 1e-11);  // base' = base 4^(4 / 2)
  EXPECT_EQ(ntk.compressed_planes(), 0);
  EXPECT_EQ(dynamic.unseen_planes(), 0);
  EXPECT_EQ(dynamic.compressed_planes(), 0);
}

TEST(AngleStats, SharesMeansAndQuantiles) {
  AngleStats s;
  EXPECT_TRUE(std::isnan(s.anomalous_share()));
  EXPECT_TRUE(std::isnan(s.rising_quantile(0.5, 1)));
  s.add({.angle = 0.5, .weight = 3}, Course::kFalls);
  s.add({.angle = 1.5 * kPi, .weight = 1}, Course::kRisesThenFalls);
  AngleStats twice = s;
  twice.add(s);
  EXPECT_EQ(twice.pairs, 4);
  EXPECT_EQ(twice.anomalous_share(), 0.5);
  EXPECT_EQ(twice.weighted_anomalous_share(), 0.25);
  EXPECT_EQ(twice.weighted_share(Course::kFalls), 0.75);
  // All anomalies are at 3/2 pi: tau = pi / 2 / theta, to within a bin of 5 degrees.
  for (const double q : {0.01, 0.5, 0.99})
    EXPECT_NEAR(twice.rising_quantile(q, 0.1), kPi / 2 / 0.1, kTurn / 72 / 0.1) << q;
  AngleStats even;  // evenly spread angles have no mean direction
  for (int i = 0; i < 72; ++i) even.add({.angle = (i + 0.5) * kTurn / 72, .weight = 1}, Course::kFalls);
  EXPECT_NEAR(even.concentration(), 0, 1e-14);
  EXPECT_NEAR(even.rising_quantile(0.25, 1), kPi / 4, kRounding);
  EXPECT_EQ(even.histogram[0], 1);
  EXPECT_EQ(even.histogram[71], 1);
}

TEST(Sample, AllPairsOrSomeOfThem) {
  Rng rng(3);
  const std::vector<TokenPair> all = sample_pairs(4, 0, rng);
  ASSERT_EQ(all.size(), 10u);
  EXPECT_EQ(all[0].m, 0);
  EXPECT_EQ(all[9].m, 3);
  EXPECT_EQ(all[9].n, 3);
  EXPECT_EQ(all[4].m, 2);
  EXPECT_EQ(all[4].n, 1);
  int64_t first_rows = 0;
  const std::vector<TokenPair> some = sample_pairs(1000, 4000, rng);
  for (const TokenPair& p : some) {
    EXPECT_LE(p.n, p.m);
    EXPECT_LT(p.m, 1000);
    first_rows += p.m < 500;
  }
  EXPECT_NEAR(static_cast<double>(first_rows) / 4000, 0.25, 0.035);  // 5 standard deviations, sqrt(.25 .75 / 4000)
  EXPECT_EQ(sample_rows(5, 0, rng), (std::vector<int64_t>{1, 2, 3, 4}));
  const std::vector<int64_t> rows = sample_rows(1001, 10, rng);
  for (int64_t i = 0; i < 10; ++i) {
    EXPECT_GT(rows[static_cast<size_t>(i)], i * 100);
    EXPECT_LE(rows[static_cast<size_t>(i)], (i + 1) * 100);
  }
}

}  // namespace
}  // namespace coca::analyse::angles_test

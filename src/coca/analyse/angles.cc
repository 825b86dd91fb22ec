// SPDX-License-Identifier: Apache-2.0
#include "coca/analyse/angles.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace coca::analyse {

namespace {

size_t index(Course c) { return static_cast<size_t>(c); }

}  // namespace

double ratio(double sum, double count) { return count != 0 ? sum / count : std::numeric_limits<double>::quiet_NaN(); }

double wrapped(double angle) {
  angle = std::fmod(angle, kTurn);
  if (angle < 0) angle += kTurn;
  return angle < kTurn ? angle : 0;  // -1e-17 + 2 pi rounds to 2 pi
}

PlanePair plane_pair(Plane q, Plane k, double turned) {
  const double along = q.a * k.a + q.b * k.b, across = q.b * k.a - q.a * k.b;
  return {.angle = wrapped(std::atan2(across, along) - turned), .weight = std::hypot(along, across)};
}

double snapped(double angle, double rounding) { return angle < rounding || kTurn - angle < rounding ? 0 : angle; }

double rising_tokens(double angle, double theta) { return angle >= std::numbers::pi ? (kTurn - angle) / theta : 0; }

Course course_of(double angle, double theta, double length) {
  if (angle < std::numbers::pi)
    return angle + length * theta > std::numbers::pi ? Course::kFallsThenRises : Course::kFalls;
  return rising_tokens(angle, theta) < length ? Course::kRisesThenFalls : Course::kRises;
}

double opposite_passed(double angle, double sweep) {
  const double half = std::numbers::pi;
  return std::floor((angle + sweep + half) / kTurn) - std::floor((angle + half) / kTurn);
}

double unseen_share(double trained_sweep, double sweep) {
  if (sweep <= 0 || trained_sweep >= kTurn) return 0;
  const double turns = std::floor(sweep / kTurn), rest = sweep - turns * kTurn;
  return (turns * (kTurn - trained_sweep) + std::max(0.0, rest - trained_sweep)) / sweep;
}

void AngleStats::add(const PlanePair& p, Course course) {
  ++pairs;
  weight += p.weight;
  const double c = std::cos(p.angle), s = std::sin(p.angle);
  cos += c;
  sin += s;
  weighted_cos += p.weight * c;
  weighted_sin += p.weight * s;
  ++courses[index(course)];
  course_weight[index(course)] += p.weight;
  ++histogram[std::min(kBins - 1, static_cast<size_t>(p.angle / kTurn * static_cast<double>(kBins)))];
}

void AngleStats::add(const AngleStats& other) {
  pairs += other.pairs;
  weight += other.weight;
  cos += other.cos;
  sin += other.sin;
  weighted_cos += other.weighted_cos;
  weighted_sin += other.weighted_sin;
  for (size_t i = 0; i < kCourses; ++i) {
    courses[i] += other.courses[i];
    course_weight[i] += other.course_weight[i];
  }
  for (size_t i = 0; i < kBins; ++i) histogram[i] += other.histogram[i];
}

double AngleStats::share(Course c) const {
  return ratio(static_cast<double>(courses[index(c)]), static_cast<double>(pairs));
}
double AngleStats::weighted_share(Course c) const { return ratio(course_weight[index(c)], weight); }
double AngleStats::anomalous_share() const {
  return ratio(static_cast<double>(courses[index(Course::kRises)] + courses[index(Course::kRisesThenFalls)]),
               static_cast<double>(pairs));
}
double AngleStats::weighted_anomalous_share() const {
  return weighted_share(Course::kRises) + weighted_share(Course::kRisesThenFalls);
}
double AngleStats::mean_angle() const { return pairs ? wrapped(std::atan2(sin, cos)) : ratio(0, 0); }
double AngleStats::concentration() const { return ratio(std::hypot(cos, sin), static_cast<double>(pairs)); }

// tau falls as the angle grows, so bins are walked from the last one down.
double AngleStats::rising_quantile(double share, double theta) const {
  constexpr size_t kHalf = kBins / 2;
  double total = 0, below = 0;
  for (size_t i = kHalf; i < kBins; ++i) total += static_cast<double>(histogram[i]);
  if (total == 0) return ratio(0, 0);
  for (size_t back = 0; back < kHalf; ++back) {
    const auto count = static_cast<double>(histogram[kBins - 1 - back]);
    if (count > 0 && below + count >= share * total)
      return (static_cast<double>(back) + (share * total - below) / count) * kTurn / static_cast<double>(kBins) / theta;
    below += count;
  }
  return std::numbers::pi / theta;
}

}  // namespace coca::analyse

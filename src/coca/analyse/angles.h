// coca/analyse/angles.h - the initial angle between query and key in one rotary plane, and sums of it over token pairs.
// Math: docs/analyse.md. The score of a plane at distance s is |q||k| cos(angle + s theta) (eq. 3 of arXiv 2309.08646).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <numbers>

#include "coca/base/enum_names.h"

namespace coca::analyse {

inline constexpr double kTurn = 2 * std::numbers::pi;

// Both members of a rotary pair.
struct Plane {
  double a = 0, b = 0;
};

struct PlanePair {
  double angle = 0;   // from the key to the query at distance 0, in [0, 2 pi)
  double weight = 0;  // |q||k|; if it is 0, the angle is meaningless
};

double wrapped(double angle);  // into [0, 2 pi)
// q and k as operands of attention, rotated to positions m and n; turned = (m - n) theta.
PlanePair plane_pair(Plane q, Plane k, double turned);
// Angles within `rounding` of 0 become 0, so that the rounding of a CoCA angle does not count as nearly a full turn.
double snapped(double angle, double rounding);

// How the score changes from distance 0 on, within `length` tokens.
enum class Course : uint8_t {
  kFalls,           // angle < pi, and pi is not reached
  kFallsThenRises,  // angle < pi, and pi, the lowest score, is passed
  kRises,           // angle >= pi: the anomaly, over the whole length
  kRisesThenFalls,  // angle >= pi: the anomaly, over less than the length
};
inline constexpr size_t kCourses = 4;
Course course_of(double angle, double theta, double length);

// tau: the number of tokens for which the score rises with distance from 0 on; 0 for angles below pi.
double rising_tokens(double angle, double theta);
// How often pi (mod 2 pi), where a falling score begins to rise, is passed while the plane turns by `sweep` from
// `angle`.
double opposite_passed(double angle, double sweep);
// Share of the distances in a sweep of the plane whose angle (mod 2 pi) lies outside [0, trained_sweep].
double unseen_share(double trained_sweep, double sweep);

// One plane of one head, or several of them together.
struct AngleStats {
  static constexpr size_t kBins = 72;  // of 5 degrees

  int64_t pairs = 0;
  double weight = 0;                             // sum of |q||k|
  double cos = 0, sin = 0;                       // sums of cos and sin of the angle
  double weighted_cos = 0, weighted_sin = 0;     // the same, weighted: the plane's mean score at any distance
  std::array<int64_t, kCourses> courses{};       // pairs by Course
  std::array<double, kCourses> course_weight{};  // their |q||k|
  std::array<int64_t, kBins> histogram{};        // pairs by angle

  void add(const PlanePair&, Course);
  void add(const AngleStats&);

  // The rest is NaN without pairs.
  double share(Course) const;
  double weighted_share(Course) const;
  double anomalous_share() const;  // angle >= pi
  double weighted_anomalous_share() const;
  double mean_angle() const;     // of the mean direction, in [0, 2 pi)
  double concentration() const;  // length of the mean direction: 0 spread evenly, 1 all the same
  // Over pairs with the anomaly, from the histogram (interpolated within a bin); NaN when there are none.
  double rising_quantile(double share, double theta) const;
};

double ratio(double sum, double count);  // NaN for a count of 0

}  // namespace coca::analyse

COCA_ENUM_NAMES(coca::analyse::Course, "course", {coca::analyse::Course::kFalls, "falls"},
                {coca::analyse::Course::kFallsThenRises, "falls_then_rises"}, {coca::analyse::Course::kRises, "rises"},
                {coca::analyse::Course::kRisesThenFalls, "rises_then_falls"})

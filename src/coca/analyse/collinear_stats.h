// coca/analyse/collinear_stats.h - how far CoCA's slack scores are from strict ones, and from depending on distance
// alone. Math: docs/math/collinear.md (slack and strict in closed form), docs/analyse.md. Scores are sums over rotary
// planes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <complex>
#include <cstdint>
#include <span>
#include <vector>

#include "coca/analyse/angles.h"
#include "coca/ops/collinear.h"

namespace coca::analyse {

using Rotation = std::complex<double>;  // e^(i position theta)

// Scores of one plane: q and the folded t before rotation, the rotations of the query's and the key's position.
double slack_score(Plane q, double t, Rotation query, Rotation key);
double strict_score(Plane q, double t, Rotation query, Rotation key);

// The rotary planes of one token pair.
struct CollinearPair {
  const float* q = nullptr;     // [R], halves apart
  const float* tbar = nullptr;  // [R / 2]
  std::span<const Rotation> query, key;
};

struct CollinearStats {
  double strict = 0, difference = 0;  // sums of squares over pairs: strict scores, strict - slack
  double own = 0;                     // of the model's own kind of score
  std::vector<double> moved;          // per shift: of what moving both positions changes in it
  int64_t values = 0, zeros = 0;      // of the folded t
  double largest_angle = 0;           // |angle| in any plane and pair, before rounding is taken away

  CollinearStats() = default;
  explicit CollinearStats(size_t shifts) : moved(shifts) {}
  // shifts: per shift, R/2 rotations by that many tokens.
  void add_pair(ops::Collinear, const CollinearPair&, std::span<const std::vector<Rotation>> shifts);
  void add_angle(double angle);
  void add(const CollinearStats&);

  double departure() const;              // rms of strict - slack over rms of strict
  double moved_departure(size_t) const;  // rms of the change over rms of the score
  double zero_share() const;
};

}  // namespace coca::analyse

// coca/analyse/borders.h - what rotary planes meet beyond the trained length under each position scaling: angles never
// seen in training, and the border at pi, where a falling score begins to rise. Math: docs/analyse.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "coca/analyse/angles.h"
#include "coca/model/params.h"
#include "coca/model/spec.h"
#include "coca/ops/rope.h"

namespace coca::analyse {

// Of a sequence of seq_len tokens; no planes without rotary positions. CLEX's angles come from the weights, which it
// needs.
ops::Rotation plane_rotation(const model::ModelSpec&, int64_t seq_len, const model::Weights* = nullptr);

struct PlaneBorders {
  double compression = 1;  // trained theta / theta: neighbouring tokens are this many times closer than in training
  double trained_turns = 0, turns = 0;  // over the trained length; over all distances
  double opposite = 0;                  // times pi is passed, mean over the plane's angles; NaN where none are given
  double unseen = 0;                    // share of the distances whose angle was never seen in training
};

// One scaling at one multiple of the trained length.
struct ScaledBorders {
  model::RopeScaling scaling;
  int64_t multiple = 1;
  ops::Rotation rotation;
  std::vector<PlaneBorders> planes;

  int64_t unseen_planes() const;      // with distances at unseen turns
  double unseen_share() const;        // mean over planes
  double opposite_passed() const;     // mean over planes
  int64_t compressed_planes() const;  // by more than a tenth, of those that came full circle in training
};

struct BordersOptions {
  std::vector<int64_t> multiples = {1, 2, 4, 8, 16, 32};
  double dynamic_factor = 4;  // of dynamic scaling; the others get the multiple as their factor
};

void check(const BordersOptions&);  // Error for a multiple or a factor below 1

// Every scaling that needs no more than a factor, over the model's own first; with CLEX its own alone, which no other
// can stand in for. angles: of each plane over all heads, or none. Weights: CLEX only.
std::vector<ScaledBorders> scaled_borders(const model::ModelSpec&, std::span<const AngleStats> angles,
                                          const BordersOptions&, const model::Weights* = nullptr);
std::string scaling_name(
    const model::RopeScaling&);  // "none", "linear", "dynamic x4": the factor where it is no multiple

}  // namespace coca::analyse

// SPDX-License-Identifier: Apache-2.0
#include "coca/analyse/borders.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "coca/model/decoder.h"

namespace coca::analyse {

namespace {

double mean_opposite(const AngleStats& angles, double sweep) {
  double sum = 0;
  for (size_t i = 0; i < AngleStats::kBins; ++i) {
    const double angle = (static_cast<double>(i) + 0.5) * kTurn / static_cast<double>(AngleStats::kBins);
    sum += static_cast<double>(angles.histogram[i]) * opposite_passed(angle, sweep);
  }
  return ratio(sum, static_cast<double>(angles.pairs));
}

std::vector<model::RopeScaling> candidates(const model::ModelSpec& spec, int64_t multiple, double dynamic_factor) {
  std::vector<model::RopeScaling> out = {spec.rope_scaling};
  if (spec.rope_scaling.type == model::Scaling::kClex) return out;
  for (const auto& entry : EnumTraits<model::Scaling>::names()) {
    if (entry.value == spec.rope_scaling.type || entry.value == model::Scaling::kClex)
      continue;  // CLEX has its angles from weights
    std::optional<double> factor = static_cast<double>(multiple);
    if (entry.value == model::Scaling::kDynamic) factor = dynamic_factor;
    if (entry.value == model::Scaling::kNone) factor.reset();
    try {
      out.push_back(model::with_scaling(spec, entry.value, factor).rope_scaling);
    } catch (const Error&) {  // needs more than a factor (longrope's lists): of no use to a model not made for it
    }
  }
  return out;
}

ScaledBorders borders_of(const model::ModelSpec& spec, const model::RopeScaling& scaling, int64_t multiple,
                         std::span<const AngleStats> angles, const model::Weights* weights) {
  const std::vector<double> trained = plane_rotation(spec, spec.max_position, weights).frequencies;
  model::ModelSpec scaled = spec;
  scaled.rope_scaling = scaling;
  const auto trained_length = static_cast<double>(spec.max_position),
             length = trained_length * static_cast<double>(multiple);
  ScaledBorders out{.scaling = scaling,
                    .multiple = multiple,
                    .rotation = plane_rotation(scaled, spec.max_position * multiple, weights),
                    .planes = {}};
  for (size_t j = 0; j < trained.size(); ++j) {
    const double sweep = length * out.rotation.frequencies[j];
    out.planes.push_back({.compression = trained[j] / out.rotation.frequencies[j],
                          .trained_turns = trained_length * trained[j] / kTurn,
                          .turns = sweep / kTurn,
                          .opposite = angles.empty() ? ratio(0, 0) : mean_opposite(angles[j], sweep),
                          .unseen = unseen_share(trained_length * trained[j], sweep)});
  }
  return out;
}

}  // namespace

ops::Rotation plane_rotation(const model::ModelSpec& spec, int64_t seq_len, const model::Weights* weights) {
  return model::uses_rotary(spec.attention) ? model::PositionSource(spec, weights).rotation(seq_len) : ops::Rotation{};
}

void check(const BordersOptions& options) {
  COCA_CHECK(options.dynamic_factor >= 1, "dynamic_factor is {}; expected at least 1", options.dynamic_factor);
  for (const int64_t multiple : options.multiples)
    COCA_CHECK(multiple >= 1, "multiples holds {}; expected at least 1", multiple);
}

int64_t ScaledBorders::unseen_planes() const {
  // A share of 1e-9 is rounding: position interpolation sweeps exactly what training did.
  return std::count_if(planes.begin(), planes.end(), [](const PlaneBorders& p) { return p.unseen > 1e-9; });
}

double ScaledBorders::unseen_share() const {
  double sum = 0;
  for (const PlaneBorders& p : planes) sum += p.unseen;
  return ratio(sum, static_cast<double>(planes.size()));
}

double ScaledBorders::opposite_passed() const {
  double sum = 0;
  for (const PlaneBorders& p : planes) sum += p.opposite;
  return ratio(sum, static_cast<double>(planes.size()));
}

int64_t ScaledBorders::compressed_planes() const {
  return std::count_if(planes.begin(), planes.end(),
                       [](const PlaneBorders& p) { return p.compression > 1.1 && p.trained_turns >= 1; });
}

std::vector<ScaledBorders> scaled_borders(const model::ModelSpec& spec, std::span<const AngleStats> angles,
                                          const BordersOptions& options, const model::Weights* weights) {
  std::vector<ScaledBorders> out;
  if (!model::uses_rotary(spec.attention)) return out;
  check(options);
  for (const int64_t multiple : options.multiples)
    for (const model::RopeScaling& scaling : candidates(spec, multiple, options.dynamic_factor))
      out.push_back(borders_of(spec, scaling, multiple, angles, weights));
  return out;
}

std::string scaling_name(const model::RopeScaling& scaling) {
  const std::string name(enum_name(scaling.type));
  return scaling.type == model::Scaling::kDynamic ? fmt::format("{} x{:g}", name, scaling.factor) : name;
}

}  // namespace coca::analyse

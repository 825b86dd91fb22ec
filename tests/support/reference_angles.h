// tests/support/reference_angles.h - a second implementation of docs/math/rope.md: cos and sin of a position under each
// scaling, following the published code, one pair at a time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "coca/model/spec.h"

namespace coca::test {

struct ReferenceAngles {
  std::vector<double> theta;
  double size = 1.0;
  std::vector<double> zeta;  // xPos only

  // side: 1 for queries, -1 for keys.
  double cos(double position, int64_t j, double side) const {
    return factor(position, j, side) * std::cos(angle(position, j));
  }
  double sin(double position, int64_t j, double side) const {
    return factor(position, j, side) * std::sin(angle(position, j));
  }

 private:
  double angle(double position, int64_t j) const { return position * theta[static_cast<size_t>(j)]; }
  double factor(double position, int64_t j, double side) const {
    return zeta.empty() ? size : size * std::pow(zeta[static_cast<size_t>(j)], side * position / 512);
  }
};

// YaRN's find_correction_dim.
inline double reference_yarn_border(const model::ModelSpec& s, double turns, double L) {
  return static_cast<double>(s.R) * std::log(L / (turns * 2 * std::numbers::pi)) / (2 * std::log(s.rope_theta));
}

// The scaled frequency of pair j, given its frequency t; L is the original context.
inline double reference_scaled(const model::ModelSpec& s, double j, double t, double L, int64_t seq_len) {
  using model::Scaling;
  const model::RopeScaling& r = s.rope_scaling;
  const double wavelength = 2 * std::numbers::pi / t, f = r.factor;
  if (r.type == Scaling::kLinear) return t / f;
  if (r.type == Scaling::kLlama3) {
    if (wavelength < L / r.high_freq_factor) return t;
    if (wavelength > L / r.low_freq_factor) return t / f;
    const double smooth = (L / wavelength - r.low_freq_factor) / (r.high_freq_factor - r.low_freq_factor);
    return (1 - smooth) * t / f + smooth * t;
  }
  if (r.type == Scaling::kYarn) {
    double low = reference_yarn_border(s, r.beta_fast, L), high = reference_yarn_border(s, r.beta_slow, L);
    if (r.borders == model::YarnBorders::kWhole) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, static_cast<double>(s.R) - 1);
    const double ramp = std::clamp((j - low) / (low == high ? 0.001 : high - low), 0.0, 1.0);
    return t / f * ramp + t * (1 - ramp);
  }
  if (r.type == Scaling::kYarnPaper) {  // gamma of the paper, eq. 18: by the ratio of context to wavelength
    const double ratio = L / wavelength;
    const double gamma = ratio < r.beta_slow   ? 0
                         : ratio > r.beta_fast ? 1
                                               : (ratio - r.beta_slow) / (r.beta_fast - r.beta_slow);
    return (1 - gamma) * t / f + gamma * t;
  }
  if (r.type == Scaling::kLongRope)
    return t / (static_cast<double>(seq_len) > L ? r.long_factor : r.short_factor)[static_cast<size_t>(j)];
  return t;
}

inline ReferenceAngles reference_angles(const model::ModelSpec& s, int64_t seq_len) {
  using model::Scaling;
  const std::string_view name = enum_name(s.attention);
  const model::RopeScaling& r = s.rope_scaling;
  const double R = static_cast<double>(s.R), trained = static_cast<double>(s.max_position),
               n = static_cast<double>(seq_len);
  const double L = r.original_max_position > 0 ? static_cast<double>(r.original_max_position) : trained;
  ReferenceAngles a;
  double base = s.rope_theta;
  if (r.type == Scaling::kDynamic && n > trained)
    base *= std::pow(r.factor * n / trained - (r.factor - 1), R / (R - 2));
  if (r.type == Scaling::kNtk) base *= std::pow(r.factor, R / (R - 2));
  const bool turns = !name.ends_with("alibi") && !name.ends_with("none");
  for (double j = 0; j < R / 2; ++j) {
    a.theta.push_back(turns ? reference_scaled(s, j, std::pow(base, -2 * j / R), L, seq_len) : 0.0);
    if (name.ends_with("xpos")) a.zeta.push_back((2 * j + 0.4 * R) / (1.4 * R));
  }
  if (r.type == Scaling::kYarn || r.type == Scaling::kYarnPaper)
    a.size = r.attention_factor.value_or(0.1 * std::log(r.factor) + 1);
  if (r.type == Scaling::kLongRope)
    a.size = r.attention_factor.value_or(std::sqrt(1 + std::log(r.factor) / std::log(L)));
  return a;
}

}  // namespace coca::test

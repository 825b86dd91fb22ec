// SPDX-License-Identifier: Apache-2.0
#include "coca/model/rope_rotation.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace coca::model {

namespace {

double original_length(const ModelSpec& s) {
  const int64_t L = s.rope_scaling.original_max_position;
  return static_cast<double>(L > 0 ? L : s.max_position);
}

// By how often pairs turn: all of theta from `fast` turns on, theta / factor up to `slow`, linear in turns between.
double mix_by_turns(const ModelSpec& s, double theta, double slow, double fast) {
  const double turns = original_length(s) * theta / (2.0 * std::numbers::pi);
  const double keep = std::clamp((turns - slow) / (fast - slow), 0.0, 1.0);
  return (1.0 - keep) * theta / s.rope_scaling.factor + keep * theta;
}

// The pair index, a real number, that makes `turns` turns in the original context.
double pair_of_turns(const ModelSpec& s, double turns) {
  return static_cast<double>(s.R) * std::log(original_length(s) / (turns * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(s.rope_theta));
}

// Hugging Face's _compute_yarn_parameters. Its upper border is clamped to R - 1, not to the last pair.
double yarn_frequency(const ModelSpec& s, double j, double theta) {
  const bool whole = s.rope_scaling.borders == YarnBorders::kWhole;
  double low = pair_of_turns(s, s.rope_scaling.beta_fast), high = pair_of_turns(s, s.rope_scaling.beta_slow);
  if (whole) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(s.R - 1));
  if (low == high) high += 0.001;
  const double keep = 1.0 - std::clamp((j - low) / (high - low), 0.0, 1.0);
  return theta / s.rope_scaling.factor * (1.0 - keep) + theta * keep;
}

double yarn_amplitude(const RopeScaling& s) {
  if (s.attention_factor) return *s.attention_factor;
  const auto from = [&](double mscale) { return s.factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(s.factor) + 1.0; };
  const bool both = s.mscale.value_or(0) != 0 && s.mscale_all_dim.value_or(0) != 0;
  return both ? from(*s.mscale) / from(*s.mscale_all_dim) : from(1.0);
}

double longrope_amplitude(const ModelSpec& s) {
  if (s.rope_scaling.attention_factor) return *s.rope_scaling.attention_factor;
  const double factor = s.rope_scaling.factor;
  return factor <= 1.0 ? 1.0 : std::sqrt(1.0 + std::log(factor) / std::log(original_length(s)));
}

double scaled_frequency(const ModelSpec& s, size_t j, double theta, bool beyond) {
  const RopeScaling& scaling = s.rope_scaling;
  switch (scaling.type) {
    case Scaling::kNone:
    case Scaling::kNtk:
    case Scaling::kDynamic: return theta;  // in the base
    case Scaling::kLinear: return theta / scaling.factor;
    case Scaling::kYarn: return yarn_frequency(s, static_cast<double>(j), theta);
    case Scaling::kYarnPaper: return mix_by_turns(s, theta, scaling.beta_slow, scaling.beta_fast);
    case Scaling::kLlama3: return mix_by_turns(s, theta, scaling.low_freq_factor, scaling.high_freq_factor);
    case Scaling::kClex: fail(ErrorKind::kInternal, "clex: its frequencies come from weights (PositionSource)");
    case Scaling::kLongRope: return theta / (beyond ? scaling.long_factor : scaling.short_factor)[j];
  }
  return theta;
}

}  // namespace

double rope_base(const ModelSpec& s, int64_t seq_len) {
  if (s.R <= 2) return s.rope_theta;
  double stretch = 1.0;
  if (s.rope_scaling.type == Scaling::kNtk) stretch = s.rope_scaling.factor;
  if (s.rope_scaling.type == Scaling::kDynamic && seq_len > s.max_position)
    stretch = s.rope_scaling.factor * static_cast<double>(seq_len) / static_cast<double>(s.max_position) -
              (s.rope_scaling.factor - 1.0);
  return s.rope_theta * std::pow(stretch, static_cast<double>(s.R) / static_cast<double>(s.R - 2));
}

bool frames_queries(const ModelSpec& s) {
  return s.pattern.far() && s.pattern.frame == SlackFrame::kWindow && is_coca(s.attention) &&
         uses_rotary(s.attention) && collinear_options(s).kind == ops::Collinear::kSlack;
}

ops::Rotation rope_rotation(const ModelSpec& s, int64_t all_tokens) {
  const int64_t seq_len = s.pattern.used_length(all_tokens);
  ops::Rotation rotation;
  rotation.frequencies.resize(static_cast<size_t>(s.R / 2));
  if (!uses_rotary(s.attention)) return rotation;
  const double base = rope_base(s, seq_len);
  const bool beyond = static_cast<double>(seq_len) > original_length(s);
  for (size_t j = 0; j < rotation.frequencies.size(); ++j)
    rotation.frequencies[j] =
        scaled_frequency(s, j, std::pow(base, -2.0 * static_cast<double>(j) / static_cast<double>(s.R)), beyond);
  const Scaling type = s.rope_scaling.type;
  if (type == Scaling::kYarn || type == Scaling::kYarnPaper) rotation.amplitude = yarn_amplitude(s.rope_scaling);
  if (type == Scaling::kLongRope) rotation.amplitude = longrope_amplitude(s);
  if (!uses_xpos(s.attention)) return rotation;
  // zeta_j = (2 j + 0.4 R) / (1.4 R), to the power of positions / 512 (torchscale's xpos_relative_position.py).
  for (size_t j = 0; j < rotation.frequencies.size(); ++j) {
    const double R = static_cast<double>(s.R);
    rotation.growth.push_back(std::log((2.0 * static_cast<double>(j) + 0.4 * R) / (1.4 * R)) / 512.0);
  }
  return rotation;
}

double growth_origin(const ModelSpec& s, int64_t start, int64_t n) {
  if (!uses_xpos(s.attention)) return 0.0;
  COCA_CHECK(n <= 65536, "model: xPos takes at most 65536 tokens in one piece, found {}", n);
  return static_cast<double>(start) + static_cast<double>(n) / 2;
}

}  // namespace coca::model

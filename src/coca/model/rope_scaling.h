// coca/model/rope_scaling.h - the scaling of a model's rotary positions, with its numbers. What each does to the
// frequencies: rope_rotation.h, docs/math/rope.md. JSON forms: config.h.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "coca/base/enum_names.h"

namespace coca::model {

enum class Scaling : uint8_t { kNone, kLinear, kNtk, kDynamic, kYarn, kYarnPaper, kLlama3, kLongRope, kClex };

enum class ClexActivation : uint8_t { kTanh, kSilu };

// Borders of YaRN's ramp in pair indices: Hugging Face rounds them outwards, or not ("truncate": false).
enum class YarnBorders : uint8_t { kWhole, kFractional };

struct RopeScaling {
  Scaling type = Scaling::kNone;
  double factor = 1.0;
  // The context before scaling, for yarn, llama3, longrope and clex; 0: the model's max_position. Dynamic NTK always
  // uses max_position.
  int64_t original_max_position = 0;
  // llama3: frequencies that turn less than low_freq_factor times in the original context are divided by the factor,
  // those that turn more than high_freq_factor times are unchanged.
  double low_freq_factor = 1.0, high_freq_factor = 4.0;
  // yarn: those that turn more than beta_fast times are unchanged, those that turn less than beta_slow times are
  // divided.
  double beta_fast = 32.0, beta_slow = 1.0;
  YarnBorders borders = YarnBorders::kWhole;
  // yarn, longrope: the factor of cos and sin; none: derived from `factor`.
  std::optional<double> attention_factor;
  std::optional<double> mscale, mscale_all_dim;   // yarn as DeepSeek has it
  std::vector<double> short_factor, long_factor;  // longrope: [R/2] each
  // clex (clex.h): the largest length factor, the inner width of its network in multiples of R, the network's
  // activation, and the largest step of the solver.
  int64_t max_factor = 16, param_factor = 1;
  ClexActivation activation = ClexActivation::kTanh;
  double time_step = 0.01;

  friend bool operator==(const RopeScaling&, const RopeScaling&) = default;
};

// Throws Error naming the first invalid number. pairs: R/2 of the model.
void validate(const RopeScaling&, int64_t pairs);

}  // namespace coca::model

COCA_ENUM_NAMES(coca::model::Scaling, "rope-scaling", {coca::model::Scaling::kNone, "none"},
                {coca::model::Scaling::kLinear, "linear"}, {coca::model::Scaling::kNtk, "ntk"},
                {coca::model::Scaling::kDynamic, "dynamic"}, {coca::model::Scaling::kYarn, "yarn"},
                {coca::model::Scaling::kYarnPaper, "yarn-paper"}, {coca::model::Scaling::kLlama3, "llama3"},
                {coca::model::Scaling::kLongRope, "longrope"}, {coca::model::Scaling::kClex, "clex"})
COCA_ENUM_NAMES(coca::model::ClexActivation, "act", {coca::model::ClexActivation::kTanh, "tanh"},
                {coca::model::ClexActivation::kSilu, "silu"})

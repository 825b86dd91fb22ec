// SPDX-License-Identifier: Apache-2.0
#include "coca/model/rope_table.h"

#include <cmath>
#include <numbers>

#include "coca/base/parallel.h"

namespace coca::model {

double rope_base(const ModelSpec& s, int64_t seq_len) {
  if (s.rope_scaling.type != Scaling::kDynamic || seq_len <= s.max_position || s.R <= 2) return s.rope_theta;
  const double stretch = s.rope_scaling.factor * static_cast<double>(seq_len) / static_cast<double>(s.max_position) -
                         (s.rope_scaling.factor - 1.0);
  return s.rope_theta * std::pow(stretch, static_cast<double>(s.R) / static_cast<double>(s.R - 2));
}

namespace {

// Grattafiori et al. 2024; Hugging Face's _compute_llama3_parameters: by how often a pair turns within the original length.
double llama3_frequency(const RopeScaling& scaling, double theta) {
  const double turns = static_cast<double>(scaling.original_max_position) * theta / (2.0 * std::numbers::pi);
  if (turns < scaling.low_freq_factor) return theta / scaling.factor;
  if (turns > scaling.high_freq_factor) return theta;
  const double keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1.0 - keep) * theta / scaling.factor + keep * theta;
}

}  // namespace

std::vector<double> rope_frequencies(const ModelSpec& s, int64_t seq_len) {
  const double base = rope_base(s, seq_len);
  std::vector<double> theta(static_cast<size_t>(s.R / 2));
  for (size_t j = 0; j < theta.size(); ++j) {
    theta[j] = std::pow(base, -2.0 * static_cast<double>(j) / static_cast<double>(s.R));
    if (s.rope_scaling.type == Scaling::kLinear) theta[j] /= s.rope_scaling.factor;
    if (s.rope_scaling.type == Scaling::kLlama3) theta[j] = llama3_frequency(s.rope_scaling, theta[j]);
  }
  return theta;
}

void RopeTable::build(const ModelSpec& spec, int64_t start, int64_t n, int64_t seq_len) {
  std::vector<double> frequencies = rope_frequencies(spec, seq_len);
  if (frequencies == frequencies_ && start == start_ && n <= n_) return;  // what is there serves
  const auto half = static_cast<int64_t>(frequencies.size());
  if (cos_.empty() || cos_.size(1) < n || cos_.size(2) != half) {
    cos_ = Tensor({1, n, half});
    sin_ = Tensor({1, n, half});
  }
  frequencies_ = std::move(frequencies);
  start_ = start;
  n_ = n;
  float* cos = cos_.ref().as<float>();
  float* sin = sin_.ref().as<float>();
  parallel_blocks(n, 256, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t j = 0; j < half; ++j) {
        const double angle = static_cast<double>(start + i) * frequencies_[static_cast<size_t>(j)];
        cos[i * half + j] = static_cast<float>(std::cos(angle));
        sin[i * half + j] = static_cast<float>(std::sin(angle));
      }
  });
}

ops::RopeRows RopeTable::rows(int64_t first, int64_t count) const {
  return {cos_.ref().narrow(1, first, count), sin_.ref().narrow(1, first, count)};
}

}  // namespace coca::model

// SPDX-License-Identifier: Apache-2.0
#include "coca/model/rope_table.h"

#include <cmath>

#include "coca/base/parallel.h"

namespace coca::model {

double rope_base(const ModelSpec& s, int64_t seq_len) {
  if (s.rope_scaling.type != Scaling::kDynamic || seq_len <= s.max_position || s.R <= 2) return s.rope_theta;
  const double stretch = s.rope_scaling.factor * static_cast<double>(seq_len) / static_cast<double>(s.max_position) -
                         (s.rope_scaling.factor - 1.0);
  return s.rope_theta * std::pow(stretch, static_cast<double>(s.R) / static_cast<double>(s.R - 2));
}

std::vector<double> rope_frequencies(const ModelSpec& s, int64_t seq_len) {
  const double base = rope_base(s, seq_len);
  const double divisor = s.rope_scaling.type == Scaling::kLinear ? s.rope_scaling.factor : 1.0;
  std::vector<double> theta(static_cast<size_t>(s.R / 2));
  for (size_t j = 0; j < theta.size(); ++j)
    theta[j] = std::pow(base, -2.0 * static_cast<double>(j) / static_cast<double>(s.R)) / divisor;
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

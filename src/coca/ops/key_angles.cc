// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "coca/base/parallel.h"
#include "coca/ops/decode_attention.h"

namespace coca::ops {

void KeyAngles::build(std::span<const double> frequencies, int64_t S) {
  const bool same = std::equal(frequencies.begin(), frequencies.end(), frequencies_.begin(), frequencies_.end());
  const auto half = static_cast<int64_t>(frequencies.size());
  const int64_t tiles = (S + kKvTile - 1) / kKvTile, old = same ? tiles_ : 0;
  if (!same) {
    frequencies_.assign(frequencies.begin(), frequencies.end());
    offset_cos_.resize(static_cast<size_t>(half * kKvTile));
    offset_sin_.resize(static_cast<size_t>(half * kKvTile));
    for (int64_t j = 0; j < half; ++j)
      for (int64_t i = 0; i < kKvTile; ++i) {
        const double angle = static_cast<double>(i) * frequencies_[static_cast<size_t>(j)];
        offset_cos_[static_cast<size_t>(j * kKvTile + i)] = static_cast<float>(std::cos(angle));
        offset_sin_[static_cast<size_t>(j * kKvTile + i)] = static_cast<float>(std::sin(angle));
      }
    tiles_ = 0;
  }
  if (tiles <= old) return;
  start_cos_.resize(static_cast<size_t>(tiles * half));
  start_sin_.resize(static_cast<size_t>(tiles * half));
  parallel_blocks(tiles - old, 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = old + begin; t < old + end; ++t)
      for (int64_t j = 0; j < half; ++j) {
        const double angle = static_cast<double>(t * kKvTile) * frequencies_[static_cast<size_t>(j)];
        start_cos_[static_cast<size_t>(t * half + j)] = static_cast<float>(std::cos(angle));
        start_sin_[static_cast<size_t>(t * half + j)] = static_cast<float>(std::sin(angle));
      }
  });
  tiles_ = tiles;
}

}  // namespace coca::ops

// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "coca/base/parallel.h"
#include "coca/ops/decode_attention.h"

namespace coca::ops {

namespace {

double growth_of(const Rotation& r, size_t j) {
  return r.growth.empty() ? 0.0 : r.growth[j];
}

}  // namespace

void KeyAngles::build_offsets() {
  const auto half = static_cast<size_t>(rotation_.pairs());
  offset_cos_.resize(half * kKvTile);
  offset_sin_.resize(half * kKvTile);
  for (size_t j = 0; j < half; ++j)
    for (size_t i = 0; i < kKvTile; ++i) {
      const auto position = static_cast<double>(i);
      const double angle = position * rotation_.frequencies[j], size = rotation_.amplitude * std::exp(-growth_of(rotation_, j) * position);
      offset_cos_[j * kKvTile + i] = static_cast<float>(size * std::cos(angle));
      offset_sin_[j * kKvTile + i] = static_cast<float>(size * std::sin(angle));
    }
}

void KeyAngles::build_starts(int64_t begin, int64_t end) {
  const int64_t half = rotation_.pairs();
  start_cos_.resize(static_cast<size_t>(end * half));
  start_sin_.resize(static_cast<size_t>(end * half));
  parallel_blocks(end - begin, 64, [&](int64_t first, int64_t last) {
    for (int64_t t = begin + first; t < begin + last; ++t)
      for (int64_t j = 0; j < half; ++j) {
        const auto pair = static_cast<size_t>(j), at = static_cast<size_t>(t * half + j);
        const double position = start_ + static_cast<double>(t * kKvTile);
        const double angle = position * rotation_.frequencies[pair], size = std::exp(growth_of(rotation_, pair) * (origin_ - position));
        start_cos_[at] = static_cast<float>(size * std::cos(angle));
        start_sin_[at] = static_cast<float>(size * std::sin(angle));
      }
  });
}

void KeyAngles::build(const Rotation& rotation, int64_t S, double start, double origin) {
  const bool same = rotation == rotation_;
  const bool same_starts = same && start == start_ && (origin == origin_ || rotation.growth.empty());
  rotation_ = rotation;
  start_ = start;
  origin_ = origin;
  if (!same) build_offsets();
  const int64_t tiles = (S + kKvTile - 1) / kKvTile, kept = same_starts ? tiles_ : 0;
  if (tiles <= kept) return;
  build_starts(kept, tiles);
  tiles_ = tiles;
}

}  // namespace coca::ops

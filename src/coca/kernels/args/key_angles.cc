// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "coca/base/parallel.h"
#include "coca/kernels/args/decode_attention.h"

namespace coca::ops {

namespace {

double growth_of(const Rotation& r, size_t j) { return r.growth.empty() ? 0.0 : r.growth[j]; }

// Of token i, counted from the first.
double place_of(const KeySpacing& spacing, int64_t i) {
  const int64_t place = i / spacing.group;
  return static_cast<double>(place);
}

// The angle from a tile's first token to its middle.
double middle_of(const KeySpacing& spacing) { return (place_of(spacing, kKvTile) - 1) / 2; }

}  // namespace

void KeyAngles::build_offsets() {
  const auto half = static_cast<size_t>(rotation_.pairs());
  offset_cos_.resize(half * kKvTile);
  offset_sin_.resize(half * kKvTile);
  for (size_t j = 0; j < half; ++j)
    for (int64_t i = 0; i < kKvTile; ++i) {
      const double position = place_of(spacing_, i) - middle_of(spacing_);
      const double angle = position * rotation_.frequencies[j],
                   size = rotation_.amplitude * std::exp(-growth_of(rotation_, j) * position);
      const auto at = j * kKvTile + static_cast<size_t>(kv_lane(i));
      offset_cos_[at] = static_cast<float>(size * std::cos(angle));
      offset_sin_[at] = static_cast<float>(size * std::sin(angle));
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
        const double position = spacing_.start + place_of(spacing_, t * kKvTile) + middle_of(spacing_);
        const double angle = position * rotation_.frequencies[pair],
                     size = std::exp(growth_of(rotation_, pair) * (spacing_.origin - position));
        start_cos_[at] = static_cast<float>(size * std::cos(angle));
        start_sin_[at] = static_cast<float>(size * std::sin(angle));
      }
  });
}

void KeyAngles::build(const Rotation& rotation, int64_t S, const KeySpacing& spacing) {
  COCA_CHECK(spacing.group >= 1 && kKvTile % spacing.group == 0,
             "[decode_attention] groups of {} tokens do not divide {}", spacing.group, kKvTile);
  KeySpacing wanted = spacing;
  if (rotation.growth.empty()) wanted.origin = spacing_.origin;  // it does not matter
  const bool same = rotation == rotation_ && wanted.group == spacing_.group, same_starts = same && wanted == spacing_;
  rotation_ = rotation;
  spacing_ = wanted;
  if (!same) {
    build_offsets();
    ++version_;
  }
  const int64_t tiles = (S + kKvTile - 1) / kKvTile, kept = same_starts ? tiles_ : 0;
  if (tiles <= kept) return;
  build_starts(kept, tiles);
  ++version_;
  tiles_ = tiles;
}

}  // namespace coca::ops

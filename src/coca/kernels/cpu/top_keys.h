// coca/kernels/cpu/top_keys.h - scores of one query with a tile of keys (Highway). Math: docs/math/top_keys.md.
// top_keys_op.cc packs the tiles, keeps the lists and spreads the work.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/kernels/args/top_keys.h"

namespace coca::cpu {

inline constexpr int64_t kTopKeysTile = ops::kKeyTile;

// scores [64] = sum over d of q[d] tile[d, :]; tile [D, 64].
void top_keys_scores(const float* q, const float* tile, int64_t D, float* scores) noexcept;
// x [D] = a x + b y.
void top_keys_mix(float* x, float a, const float* y, float b, int64_t D) noexcept;

}  // namespace coca::cpu

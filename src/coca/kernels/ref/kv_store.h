// coca/kernels/ref/kv_store.h - one head of one token in the pages of the cache, element by element.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "coca/tensor/kv_pages.h"

namespace coca::ref {

// Where one token's head lies: number i at element i * step.
struct Slot {
  std::byte* at;
  int64_t step;
  float* scale;   // int8 only
  int64_t limit;  // int8: largest integer, 255 or 127
};

inline Slot key_slot(const KvLayout& l, std::byte* run, int64_t n) {
  return {run + l.key_at(n), kKvTile, reinterpret_cast<float*>(run + l.key_scale_at(n)),
          l.key_sign == KeySign::kNonNegative ? 255 : 127};
}
inline Slot value_slot(const KvLayout& l, std::byte* run, int64_t n) {
  return {run + l.value_at(n), 1, reinterpret_cast<float*>(run + l.value_scale_at(n)), 127};
}

// The largest magnitude, or NaN if there is one.
inline float largest(std::span<const float> x, bool non_negative) {
  float m = 0;
  for (const float value : x) {
    const float a = non_negative && value < 0 ? 0.0f : std::abs(value);
    if (a > m || std::isnan(a)) m = a;  // nothing is larger than NaN, so it stays
  }
  return m;
}

inline void write_int8(std::span<const float> x, const Slot& slot) {
  const bool non_negative = slot.limit == 255;
  const float most = largest(x, non_negative);
  // Not below the smallest normal number: denormal scales would lose the bound of half a scale.
  const float scale = std::isfinite(most)
                          ? std::max(most / static_cast<float>(slot.limit), std::numeric_limits<float>::min())
                          : std::numeric_limits<float>::quiet_NaN();
  *slot.scale = scale;
  const long low = non_negative ? 0 : -slot.limit, high = slot.limit;
  for (size_t i = 0; i < x.size(); ++i) {
    const long q = std::isfinite(most) ? std::clamp(std::lrint(x[i] / scale), low, high) : 0;
    slot.at[static_cast<int64_t>(i) * slot.step] = static_cast<std::byte>(q);  // two's complement
  }
}

inline void write_head(KvType type, std::span<const float> x, const Slot& slot) {
  if (type == KvType::kInt8) return write_int8(x, slot);
  for (size_t i = 0; i < x.size(); ++i) {
    const int64_t at = static_cast<int64_t>(i) * slot.step;
    if (type == KvType::kF32)
      reinterpret_cast<float*>(slot.at)[at] = x[i];
    else
      reinterpret_cast<BF16*>(slot.at)[at] = BF16(x[i]);
  }
}

inline void read_head(KvType type, const Slot& slot, std::span<float> x) {
  for (size_t i = 0; i < x.size(); ++i) {
    const int64_t at = static_cast<int64_t>(i) * slot.step;
    switch (type) {
      case KvType::kF32: x[i] = reinterpret_cast<const float*>(slot.at)[at]; break;
      case KvType::kBF16: x[i] = static_cast<float>(reinterpret_cast<const BF16*>(slot.at)[at]); break;
      case KvType::kInt8: {
        const auto byte = static_cast<uint8_t>(slot.at[at]);
        const float q = slot.limit == 255 ? static_cast<float>(byte) : static_cast<float>(static_cast<int8_t>(byte));
        x[i] = q * *slot.scale;
      }
    }
  }
}

}  // namespace coca::ref

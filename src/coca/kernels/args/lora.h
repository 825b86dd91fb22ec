// coca/kernels/args/lora.h - what lora takes; ops/lora.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/base/rng.h"
#include "coca/kernels/args/implementation.h"
#include "coca/kernels/args/write.h"

namespace coca::ops {

// An element is kept with probability 1 - rate, and then divided by it. Which are kept is a function of the key and the
// index.
struct Dropout {
  float rate = 0.0f;  // 0: all are kept
  uint64_t key = 0;
};

// Whether element i is kept: its own 32 random bits are at least rate * 2^32, the threshold.
constexpr bool dropout_keeps(uint64_t key, int64_t i, uint32_t threshold) {
  const uint64_t bits = mix64(key + static_cast<uint64_t>(i >> 1) * 0x9e3779b97f4a7c15ull);
  return static_cast<uint32_t>((i & 1) != 0 ? bits >> 32 : bits) >= threshold;
}
constexpr uint32_t dropout_threshold(double rate) { return static_cast<uint32_t>(rate * 4294967296.0); }

struct LoraForward {
  TensorRef x;     // [M, K], contiguous
  TensorRef a, b;  // [R, K] [N, R]
  float scale = 1.0f;
  Dropout dropout;
  MutTensorRef y;  // [M, N] accumulated (+=)
};
struct LoraBackward {
  TensorRef x, a, b, dy;  // as above; dy [M, N]
  float scale = 1.0f;
  Dropout dropout;
  MutTensorRef dx;      // [M, K] accumulated (+=); empty: not wanted
  MutTensorRef da, db;  // [R, K] [N, R] accumulated (+=); empty: not wanted
};

// y = dropout(x), or y += dropout(x); y may have another type than x.
struct LoraDropout {
  Dropout dropout;
  TensorRef x;     // [M, K], contiguous
  MutTensorRef y;  // [M, K], contiguous
  Write y_write = Write::kAssign;
};
struct LoraFunctions {
  void (*dropout)(Context&, const LoraDropout&);
  void (*multiply)(Context&, MutTensorRef x, float factor);  // x, contiguous, *= factor
};
using LoraImpl = Implementation<LoraFunctions>;

}  // namespace coca::ops

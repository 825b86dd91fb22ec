// coca/kernels/args/lora.h - what lora takes; ops/lora.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/kernels/args/implementation.h"
#include "coca/kernels/args/write.h"

namespace coca::ops {

// An element is kept with probability 1 - rate, and then divided by it. Which are kept is a function of the key and the
// index.
struct Dropout {
  float rate = 0.0f;  // 0: all are kept
  uint64_t key = 0;
};

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

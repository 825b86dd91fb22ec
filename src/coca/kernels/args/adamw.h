// coca/kernels/args/adamw.h - what adamw takes; ops/adamw.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "coca/kernels/args/implementation.h"

namespace coca::ops {

struct AdamWStep {
  float learning_rate = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f;
  float weight_decay = 0.0f;
  float grad_scale = 1.0f;  // gradients are multiplied by this first (clipping, accumulation)
  int64_t step = 1;         // 1-based, for the bias corrections
  TensorRef grad;           // [n] f32
  MutTensorRef param;       // [n] f32 updated
  MutTensorRef m, v;        // [n] f32 updated: first and second moment
  MutTensorRef copy;        // [n] bf16, written: the updated parameters, rounded; empty: not wanted
};

struct AdamWFunctions {
  void (*step)(Context&, const AdamWStep&);
  double (*sum_of_squares)(Context&, TensorRef x);
  void (*tile_sums_of_squares)(Context&, TensorRef x, int64_t tile, std::span<double> out);
};
using AdamWImpl = Implementation<AdamWFunctions>;

}  // namespace coca::ops

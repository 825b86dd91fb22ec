// coca/kernels/args/norm.h - what norm takes; ops/norm.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/kernels/args/implementation.h"
#include "coca/kernels/args/write.h"

namespace coca::ops {

enum class NormKind : uint8_t { kLayerNorm, kRmsNorm };

struct NormForward {
  NormKind kind = NormKind::kLayerNorm;
  float eps = 1e-5f;
  TensorRef x;        // [M, C] f32 or bf16
  TensorRef w;        // [C]
  TensorRef b;        // [C], or empty (RMSNorm has none)
  MutTensorRef y;     // [M, C] f32 or bf16, written; may be x if it has the same type
  MutTensorRef stat;  // [M, 2] f32 written: mean (0 for RMSNorm), reciprocal std or rms; empty: not wanted
};
struct NormBackward {
  NormKind kind = NormKind::kLayerNorm;
  TensorRef x, w, stat;                 // as above
  TensorRef dy;                         // [M, C] f32 or bf16
  MutTensorRef dx;                      // [M, C] by dx_write; may be dy when written
  MutTensorRef dw;                      // [C] accumulated (+=); empty: not wanted
  MutTensorRef db;                      // [C] accumulated (+=); empty: no bias or not wanted
  Write dx_write = Write::kAccumulate;  // the residual path adds to the same gradient; kAssign where x is bf16
};

struct NormFunctions {
  void (*forward)(Context&, const NormForward&);
  void (*backward)(Context&, const NormBackward&);
};
using NormImpl = Implementation<NormFunctions>;

}  // namespace coca::ops

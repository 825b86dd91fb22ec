// coca/ops/norm.h - LayerNorm (Ba et al. 2016) and RMSNorm (Zhang, Sennrich 2019) over the last dimension.
// Math: docs/math/norm.md. Statistics in fp32 (accumulated blockwise), saved for the backward pass.
// y and dy may be bf16 (rounded once); so may x, and then y, dy and a written dx are bf16 too. All else is f32.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/ops/write.h"
#include "coca/tensor/context.h"

namespace coca::ops {

enum class NormKind : uint8_t { kLayerNorm, kRmsNorm };

struct NormForward {
  NormKind kind = NormKind::kLayerNorm;
  float eps = 1e-5f;
  TensorRef x;        // [M, C] f32 or bf16
  TensorRef w;        // [C]
  TensorRef b;        // [C], or empty (RMSNorm has none)
  MutTensorRef y;     // [M, C] f32 or bf16, written; may be x when of its type
  MutTensorRef stat;  // [M, 2] f32 written: mean (0 for RMSNorm), reciprocal std or rms; empty: not wanted
};
struct NormBackward {
  NormKind kind = NormKind::kLayerNorm;
  TensorRef x, w, stat;      // as above
  TensorRef dy;              // [M, C] f32 or bf16
  MutTensorRef dx;           // [M, C] by dx_write; may be dy when written
  MutTensorRef dw;           // [C] accumulated (+=); empty: not wanted
  MutTensorRef db;           // [C] accumulated (+=); empty: no bias or not wanted
  Write dx_write = Write::kAccumulate;  // the residual path adds to the same gradient; kAssign where x is bf16
};

void norm_forward(Context&, const NormForward&);
void norm_backward(Context&, const NormBackward&);

}  // namespace coca::ops

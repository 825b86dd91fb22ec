// coca/kernels/cpu/norm.h - LayerNorm and RMSNorm over a block of contiguous rows (Highway).
// y and dy are float or bf16; everything else, and the arithmetic, is float.
// Math: docs/math/norm.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/base/dtype.h"

namespace coca::cpu {

enum class Norm : uint8_t { kLayer, kRms };

template <typename Y>
struct NormRows {
  Norm kind = Norm::kLayer;
  float eps = 1e-5f;
  int64_t C = 0;
  const float* x = nullptr;  // [rows, C]
  const float* w = nullptr;  // [C]
  const float* b = nullptr;  // [C] or null
  Y* y = nullptr;            // [rows, C] written; may be x when float
  float* stat = nullptr;     // [rows, 2] written; or null
};
void norm_rows(const NormRows<float>&, int64_t rows) noexcept;
void norm_rows(const NormRows<BF16>&, int64_t rows) noexcept;

template <typename DY>
struct NormRowsBackward {
  Norm kind = Norm::kLayer;
  int64_t C = 0;
  const float *x = nullptr, *w = nullptr, *stat = nullptr;
  const DY* dy = nullptr;  // [rows, C]
  float* dx = nullptr;  // [rows, C] +=
  float* dw = nullptr;  // [C] += the sum over these rows
  float* db = nullptr;  // [C] likewise; or null
};
void norm_rows_backward(const NormRowsBackward<float>&, int64_t rows) noexcept;
void norm_rows_backward(const NormRowsBackward<BF16>&, int64_t rows) noexcept;

}  // namespace coca::cpu

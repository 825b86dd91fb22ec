// coca/kernels/cpu/norm.h - LayerNorm and RMSNorm over a block of contiguous rows (Highway).
// Math: docs/math/norm.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace coca::cpu {

enum class Norm : uint8_t { kLayer, kRms };

struct NormRows {
  Norm kind = Norm::kLayer;
  float eps = 1e-5f;
  int64_t C = 0;
  const float* x = nullptr;  // [rows, C]
  const float* w = nullptr;  // [C]
  const float* b = nullptr;  // [C] or null
  float* y = nullptr;        // [rows, C] written; may be x
  float* stat = nullptr;     // [rows, 2] written; or null
};
void norm_rows(const NormRows&, int64_t rows) noexcept;

struct NormRowsBackward {
  Norm kind = Norm::kLayer;
  int64_t C = 0;
  const float *x = nullptr, *w = nullptr, *stat = nullptr, *dy = nullptr;
  float* dx = nullptr;  // [rows, C] +=
  float* dw = nullptr;  // [C] += the sum over these rows
  float* db = nullptr;  // [C] likewise; or null
};
void norm_rows_backward(const NormRowsBackward&, int64_t rows) noexcept;

}  // namespace coca::cpu

// coca/kernels/cpu/norm.h - LayerNorm and RMSNorm over a block of contiguous rows (Highway).
// x, y, dy and dx are float or bf16, in the combinations declared; everything else, and the arithmetic, is float.
// Math: docs/math/norm.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/base/dtype.h"

namespace coca::cpu {

enum class Norm : uint8_t { kLayer, kRms };

template <typename X, typename Y>
struct NormRows {
  Norm kind = Norm::kLayer;
  float eps = 1e-5f;
  int64_t C = 0;
  const X* x = nullptr;      // [rows, C]
  const float* w = nullptr;  // [C]
  const float* b = nullptr;  // [C] or null
  Y* y = nullptr;            // [rows, C] written; may be x when of one type
  float* stat = nullptr;     // [rows, 2] written; or null
};
void norm_rows(const NormRows<float, float>&, int64_t rows) noexcept;
void norm_rows(const NormRows<float, BF16>&, int64_t rows) noexcept;
void norm_rows(const NormRows<BF16, BF16>&, int64_t rows) noexcept;

enum class NormDx : uint8_t { kAdd, kWrite };

template <typename X, typename DY, typename DX>
struct NormRowsBackward {
  Norm kind = Norm::kLayer;
  NormDx dx_write = NormDx::kAdd;  // bf16: kWrite only
  int64_t C = 0;
  const X* x = nullptr;
  const float *w = nullptr, *stat = nullptr;
  const DY* dy = nullptr;  // [rows, C]
  DX* dx = nullptr;        // [rows, C] += or =
  float* dw = nullptr;     // [C] += the sum over these rows
  float* db = nullptr;     // [C] likewise; or null
};
void norm_rows_backward(const NormRowsBackward<float, float, float>&, int64_t rows) noexcept;
void norm_rows_backward(const NormRowsBackward<float, BF16, float>&, int64_t rows) noexcept;
void norm_rows_backward(const NormRowsBackward<BF16, BF16, BF16>&, int64_t rows) noexcept;

}  // namespace coca::cpu

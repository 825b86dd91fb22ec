// coca/kernels/cpu/rope.h - rotary embedding over rows of heads (Highway).
// Views as in ops/rope.h, fp32 or bf16 with the arithmetic in fp32. Rows are b * N + n;
// each call does rows [row0, row1).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/base/dtype.h"
#include "coca/tensor/view.h"

namespace coca::cpu {

template <typename T>
using Heads = TensorView<T, 4>;

struct RopeTables {
  TensorView<const float, 3> cos, sin;  // [1 or B, N, R/2]
};

enum class Turn { kForward, kBack };  // rotate by +angle or by -angle

void rope_rows(const RopeTables& tables, Turn turn, Heads<const float> x, Heads<float> y, int64_t row0,
               int64_t row1) noexcept;
void rope_rows(const RopeTables& tables, Turn turn, Heads<const BF16> x, Heads<BF16> y, int64_t row0,
               int64_t row1) noexcept;

}  // namespace coca::cpu

// coca/kernels/cpu/rope.h - rotary embedding and the collinear prologue over rows of heads (Highway).
// Views as in ops/rope.h and ops/collinear.h, fp32. Rows are b * N + n; each call does rows [row0, row1).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/tensor/view.h"

namespace coca::cpu {

struct RopeTables {
  TensorView<const float, 3> cos, sin;  // [1 or B, N, R/2]
};

enum class Turn { kForward, kBack };  // rotate by +angle or by -angle

void rope_rows(const RopeTables&, Turn, TensorView<const float, 4> x, TensorView<float, 4> y, int64_t row0,
               int64_t row1) noexcept;

// kind: 0 slack, 1 strict, 2 tied. Pairs as in ref/collinear.h (fold inside the rotary dims).
void collinear_fold_rows(int64_t R, TensorView<const float, 4> t, TensorView<float, 4> tbar, int64_t row0,
                         int64_t row1) noexcept;
void collinear_query_rows(int kind, const RopeTables&, TensorView<const float, 4> q, TensorView<float, 4> q_eff,
                          int64_t row0, int64_t row1) noexcept;
void collinear_key_rows(int kind, const RopeTables&, TensorView<const float, 4> tbar, TensorView<float, 4> k_eff,
                        int64_t row0, int64_t row1) noexcept;
// Straight from t, without tbar in memory.
void collinear_key_rows_from_t(int kind, const RopeTables&, TensorView<const float, 4> t, TensorView<float, 4> k_eff,
                               int64_t row0, int64_t row1) noexcept;
void collinear_query_rows_backward(int kind, const RopeTables&, TensorView<const float, 4> q,
                                   TensorView<const float, 4> dq_eff, TensorView<float, 4> dq, int64_t row0,
                                   int64_t row1) noexcept;
void collinear_key_rows_backward(int kind, const RopeTables&, TensorView<const float, 4> t,
                                 TensorView<const float, 4> dk_eff, TensorView<float, 4> dt, int64_t row0,
                                 int64_t row1) noexcept;

}  // namespace coca::cpu

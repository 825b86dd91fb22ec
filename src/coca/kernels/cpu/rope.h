// coca/kernels/cpu/rope.h - rotary embedding and the collinear prologue over rows of heads (Highway).
// Views as in ops/rope.h and ops/collinear.h, fp32 or bf16 with the arithmetic in fp32. Rows are b * N + n;
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

// kind: 0 slack, 1 strict, 2 tied. Pairs as in ref/collinear.h (fold inside the rotary dims).
void collinear_fold_rows(int64_t R, Heads<const float> t, Heads<float> tbar, int64_t row0, int64_t row1) noexcept;
void collinear_fold_rows(int64_t R, Heads<const float> t, Heads<BF16> tbar, int64_t row0, int64_t row1) noexcept;
void collinear_fold_rows(int64_t R, Heads<const BF16> t, Heads<float> tbar, int64_t row0, int64_t row1) noexcept;
void collinear_fold_rows(int64_t R, Heads<const BF16> t, Heads<BF16> tbar, int64_t row0, int64_t row1) noexcept;
void collinear_query_rows(int kind, const RopeTables& tables, Heads<const float> q, Heads<float> q_eff, int64_t row0,
                          int64_t row1) noexcept;
void collinear_query_rows(int kind, const RopeTables& tables, Heads<const BF16> q, Heads<BF16> q_eff, int64_t row0,
                          int64_t row1) noexcept;
void collinear_key_rows(int kind, const RopeTables& tables, Heads<const float> tbar, Heads<float> k_eff, int64_t row0,
                        int64_t row1) noexcept;
void collinear_key_rows(int kind, const RopeTables& tables, Heads<const float> tbar, Heads<BF16> k_eff, int64_t row0,
                        int64_t row1) noexcept;
void collinear_key_rows(int kind, const RopeTables& tables, Heads<const BF16> tbar, Heads<float> k_eff, int64_t row0,
                        int64_t row1) noexcept;
void collinear_key_rows(int kind, const RopeTables& tables, Heads<const BF16> tbar, Heads<BF16> k_eff, int64_t row0,
                        int64_t row1) noexcept;
// Directly from t, without tbar in memory.
void collinear_key_rows_from_t(int kind, const RopeTables& tables, Heads<const float> t, Heads<float> k_eff,
                               int64_t row0, int64_t row1) noexcept;
void collinear_key_rows_from_t(int kind, const RopeTables& tables, Heads<const BF16> t, Heads<BF16> k_eff, int64_t row0,
                               int64_t row1) noexcept;
void collinear_query_rows_backward(int kind, const RopeTables& tables, Heads<const float> q, Heads<const float> dq_eff,
                                   Heads<float> dq, int64_t row0, int64_t row1) noexcept;
void collinear_query_rows_backward(int kind, const RopeTables& tables, Heads<const BF16> q, Heads<const BF16> dq_eff,
                                   Heads<BF16> dq, int64_t row0, int64_t row1) noexcept;
void collinear_key_rows_backward(int kind, const RopeTables& tables, Heads<const float> t, Heads<const float> dk_eff,
                                 Heads<float> dt, int64_t row0, int64_t row1) noexcept;
void collinear_key_rows_backward(int kind, const RopeTables& tables, Heads<const BF16> t, Heads<const BF16> dk_eff,
                                 Heads<BF16> dt, int64_t row0, int64_t row1) noexcept;
// By way of tbar: dtbar += from dk_eff, dt written from dtbar.
void collinear_tbar_rows_backward(int kind, const RopeTables& tables, Heads<const float> dk_eff, Heads<float> dtbar,
                                  int64_t row0, int64_t row1) noexcept;
void collinear_fold_rows_backward(int64_t R, Heads<const float> t, Heads<const float> dtbar, Heads<float> dt,
                                  int64_t row0, int64_t row1) noexcept;
void collinear_fold_rows_backward(int64_t R, Heads<const BF16> t, Heads<const float> dtbar, Heads<BF16> dt,
                                  int64_t row0, int64_t row1) noexcept;

}  // namespace coca::cpu

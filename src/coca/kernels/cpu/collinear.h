// coca/kernels/cpu/collinear.h - the collinear prologue over rows of heads (Highway). The operands are those of
// kernels/args/collinear.h, with the arithmetic in fp32. Rows are b * N + n; each call does rows [row0, row1).
// The official fold with R < E is not done here.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/collinear.h"

namespace coca::cpu {

using ops::CollinearOptions;

void collinear_fold_rows(const CollinearOptions&, const ops::CollinearFold&, int64_t row0, int64_t row1) noexcept;
void collinear_query_rows(const CollinearOptions&, const ops::CollinearQuery&, int64_t row0, int64_t row1) noexcept;
void collinear_key_rows(const CollinearOptions&, const ops::CollinearKey&, int64_t row0, int64_t row1) noexcept;
// k_eff directly from t, without tbar in memory.
void collinear_key_rows_from_t(const CollinearOptions&, const ops::CollinearForward&, int64_t row0,
                               int64_t row1) noexcept;
void collinear_query_rows_backward(const CollinearOptions&, const ops::CollinearBackward&, int64_t row0,
                                   int64_t row1) noexcept;
void collinear_key_rows_backward(const CollinearOptions&, const ops::CollinearBackward&, int64_t row0,
                                 int64_t row1) noexcept;
// By way of tbar: dtbar += from dk_eff, dt written from dtbar.
void collinear_tbar_rows_backward(const CollinearOptions&, const ops::CollinearKeyBackward&, int64_t row0,
                                  int64_t row1) noexcept;
void collinear_fold_rows_backward(const CollinearOptions&, const ops::CollinearFoldBackward&, int64_t row0,
                                  int64_t row1) noexcept;

}  // namespace coca::cpu

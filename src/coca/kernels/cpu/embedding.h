// coca/kernels/cpu/embedding.h - gather of table rows and scatter-add of their gradients (Highway).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/base/dtype.h"

namespace coca::cpu {

// y[m, :] = table[ids[m], :] for rows [row0, row1); both are [*, C], contiguous.
void embedding_rows(const int32_t* ids, const float* table, float* y, int64_t C, int64_t row0, int64_t row1) noexcept;
void embedding_rows(const int32_t* ids, const BF16* table, float* y, int64_t C, int64_t row0, int64_t row1) noexcept;

// dtable[ids[m], c] += dy[m, c] for all M rows in order, columns [col0, col1) only: a task owns its columns.
void embedding_add_columns(const int32_t* ids, const float* dy, float* dtable, int64_t M, int64_t C, int64_t col0,
                           int64_t col1) noexcept;

}  // namespace coca::cpu

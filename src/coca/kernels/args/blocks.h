// coca/kernels/args/blocks.h - the amount of work of a task. It depends on shapes alone, so that the blocks of a sum do
// not depend on the number of threads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include "coca/tensor/tensor_ref.h"

namespace coca::ops {

// Items per task, so that a task has about `numbers` numbers, `per_item` in each item.
inline int64_t grain_of(int64_t per_item, int64_t numbers = 16384) {
  return std::max<int64_t>(1, numbers / std::max<int64_t>(1, per_item));
}

// Rows per block of a sum over M rows: at least 64, and as many as give at most 64 partial sums.
inline int64_t reduction_rows(int64_t M) { return std::max<int64_t>(64, (M + 63) / 64); }

// Rows of heads [B, N, H, D] per task.
inline int64_t row_grain(TensorRef x) { return grain_of(x.size(2) * x.size(3)); }

}  // namespace coca::ops

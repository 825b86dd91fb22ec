// coca/ops/adamw.h - AdamW (Loshchilov, Hutter 2019; decoupled weight decay) and the sum of squares for clipping.
// Math: docs/math/adamw.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/adamw.h"

namespace coca::ops {

void adamw_step(Context&, const AdamWStep&);
// Sum of squares in double, over fixed blocks: the same bits for any thread count. NaN and inf propagate.
double sum_of_squares(Context&, TensorRef x);
// The same for each tile of `tile` elements; the last tile may be shorter. Writes out [ceil(n / tile)].
void tile_sums_of_squares(Context&, TensorRef x, int64_t tile, std::span<double> out);

}  // namespace coca::ops

// coca/ops/rope_check.h - shape checks shared by rope, collinear and attention. Internal to ops.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <string_view>

#include "coca/ops/check.h"
#include "coca/ops/rope.h"

namespace coca::ops {

// x is [B, N, H, D] with an innermost stride of 1.
inline void check_heads(std::string_view op, std::string_view name, TensorRef x, const Dims& wanted,
                        std::span<const DType> types = kF32OrBF16) {
  check_dtype(op, name, x, types);
  COCA_CHECK(!x.empty() && x.shape == wanted, "[{}] {} has shape {}; expected {}", op, name, x.shape.text(),
             wanted.text());
  COCA_CHECK(x.size(3) <= 1 || x.stride(3) == 1, "[{}] {}: the innermost stride must be 1, not {}", op, name,
             x.stride(3));
}

// cos and sin are [1 or B, N, R/2] with 2 * R/2 <= D, for x [B, N, H, D].
inline void check_rows(std::string_view op, const RopeRows& rows, TensorRef x) {
  COCA_CHECK(x.rank() == 4, "[{}] x has shape {}; expected [B, N, H, D]", op, x.shape.text());
  check_heads(op, "x", x, x.shape);
  COCA_CHECK(rows.cos.rank() == 3 && rows.cos.shape == rows.sin.shape, "[{}] cos {} and sin {} must be [1 or B, N, R/2]",
             op, rows.cos.shape.text(), rows.sin.shape.text());
  COCA_CHECK((rows.cos.size(0) == 1 || rows.cos.size(0) == x.size(0)) && rows.cos.size(1) == x.size(1),
             "[{}] cos {} does not fit x {}", op, rows.cos.shape.text(), x.shape.text());
  COCA_CHECK(2 * rows.cos.size(2) <= x.size(3), "[{}] {} rotary dims exceed the head dim {}", op, 2 * rows.cos.size(2),
             x.size(3));
}

// Rows of heads per task: about 16k numbers, from the shape alone.
inline int64_t row_grain(TensorRef x) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, x.size(2) * x.size(3))); }

}  // namespace coca::ops

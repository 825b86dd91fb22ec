// coca/ops/check.h - argument checks and block sizes shared by the ops. Internal to ops.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "coca/tensor/tensor_ref.h"

namespace coca::ops {

inline void check_given(std::string_view op, std::string_view name, TensorRef t) {
  COCA_CHECK(t.rank() > 0 && (!t.empty() || t.numel() == 0), "[{}] {} is missing", op, name);
  COCA_CHECK(t.device.is_cpu(), "[{}] {} {} lies on {}; expected cpu", op, name, t.shape.text(), t.device.text());
}

// The element types an argument may have.
inline constexpr DType kF32Only[] = {DType::kF32};
inline constexpr DType kF32OrBF16[] = {DType::kF32, DType::kBF16};

inline void check_dtype(std::string_view op, std::string_view name, TensorRef t, std::span<const DType> wanted) {
  check_given(op, name, t);
  if (std::find(wanted.begin(), wanted.end(), t.dtype) != wanted.end()) return;
  std::string names;
  for (DType type : wanted) names += fmt::format("{}{}", names.empty() ? "" : " or ", dtype_name(type));
  fail(ErrorKind::kInvalidArgument, "[{}] {} has type {}; expected {}", op, name, dtype_name(t.dtype), names);
}
inline void check_dtype(std::string_view op, std::string_view name, TensorRef t, DType wanted) {
  check_dtype(op, name, t, std::span(&wanted, 1));
}

// Contiguous, of any shape.
inline void check_packed(std::string_view op, std::string_view name, TensorRef t,
                         std::span<const DType> types = kF32Only) {
  check_dtype(op, name, t, types);
  COCA_CHECK(t.contiguous(), "[{}] {} {} must be contiguous", op, name, t.shape.text());
}

// Contiguous, of shape `wanted`.
inline void check_packed(std::string_view op, std::string_view name, TensorRef t, const Dims& wanted,
                         std::span<const DType> types = kF32Only) {
  check_dtype(op, name, t, types);
  COCA_CHECK(t.shape == wanted, "[{}] {} has shape {}; expected {}", op, name, t.shape.text(), wanted.text());
  COCA_CHECK(t.contiguous(), "[{}] {} {} must be contiguous", op, name, t.shape.text());
}
inline void check_packed(std::string_view op, std::string_view name, TensorRef t, const Dims& wanted, DType type) {
  check_packed(op, name, t, wanted, std::span(&type, 1));
}

// Contiguous [M] i32.
inline void check_ids(std::string_view op, std::string_view name, TensorRef t, int64_t M) {
  check_dtype(op, name, t, DType::kI32);
  COCA_CHECK(t.shape == Dims{M}, "[{}] {} has shape {}; expected {}", op, name, t.shape.text(),
             Dims{M}.text());
  COCA_CHECK(t.contiguous(), "[{}] {} {} must be contiguous", op, name, t.shape.text());
}

inline void check_rank2(std::string_view op, std::string_view name, TensorRef t) {
  check_given(op, name, t);
  COCA_CHECK(t.rank() == 2, "[{}] {} {} must have two dimensions", op, name, t.shape.text());
}

// Items per task so that a task has about `numbers` numbers of `per_item` each: from the shape alone.
inline int64_t grain_of(int64_t per_item, int64_t numbers = 16384) {
  return std::max<int64_t>(1, numbers / std::max<int64_t>(1, per_item));
}

// Rows per block of a sum over M rows: at most 64 partial sums whatever M, at least 64 rows in each.
inline int64_t reduction_rows(int64_t M) {
  return std::max<int64_t>(64, (M + 63) / 64);
}

}  // namespace coca::ops

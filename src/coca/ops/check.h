// coca/ops/check.h - checks of operands, shared by the ops. Internal to ops.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <string_view>

#include "coca/kernels/args/rope.h"
#include "coca/tensor/context.h"
#include "coca/tensor/kv_pages.h"

namespace coca::ops {

// The op whose operands are checked, for messages, and the device on which they must lie.
struct Site {
  std::string_view op;
  Device device;

  Site(std::string_view op_, const Context& context) : op(op_), device(context.device()) {}
};

inline void check_given(const Site& at, std::string_view name, TensorRef t) {
  COCA_CHECK(t.rank() > 0 && (!t.empty() || t.numel() == 0), "[{}] {} is missing", at.op, name);
  COCA_CHECK(t.device == at.device, "[{}] {} {} lies on {}; expected {}", at.op, name, t.shape.text(), t.device.text(),
             at.device.text());
}

// Checks that the pages of the cache are on the device where the op runs.
template <typename Byte>
void check_cache(const Site& at, const BasicKvView<Byte>& cache) {
  COCA_CHECK(cache.device == at.device, "[{}] the pages of the cache lie on {}; expected {}", at.op,
             cache.device.text(), at.device.text());
}

// The element types an argument may have.
inline constexpr DType kF32Only[] = {DType::kF32};
inline constexpr DType kF32OrBF16[] = {DType::kF32, DType::kBF16};

inline void check_dtype(const Site& at, std::string_view name, TensorRef t, std::span<const DType> wanted) {
  check_given(at, name, t);
  if (std::find(wanted.begin(), wanted.end(), t.dtype) != wanted.end()) return;
  std::string names;
  for (DType type : wanted) names += fmt::format("{}{}", names.empty() ? "" : " or ", dtype_name(type));
  fail(ErrorKind::kInvalidArgument, "[{}] {} has type {}; expected {}", at.op, name, dtype_name(t.dtype), names);
}
inline void check_dtype(const Site& at, std::string_view name, TensorRef t, DType wanted) {
  check_dtype(at, name, t, std::span(&wanted, 1));
}

// Contiguous, of any shape.
inline void check_packed(const Site& at, std::string_view name, TensorRef t, std::span<const DType> types = kF32Only) {
  check_dtype(at, name, t, types);
  COCA_CHECK(t.contiguous(), "[{}] {} {} must be contiguous", at.op, name, t.shape.text());
}

// Contiguous, of shape `wanted`.
inline void check_packed(const Site& at, std::string_view name, TensorRef t, const Dims& wanted,
                         std::span<const DType> types = kF32Only) {
  check_dtype(at, name, t, types);
  COCA_CHECK(t.shape == wanted, "[{}] {} has shape {}; expected {}", at.op, name, t.shape.text(), wanted.text());
  COCA_CHECK(t.contiguous(), "[{}] {} {} must be contiguous", at.op, name, t.shape.text());
}
inline void check_packed(const Site& at, std::string_view name, TensorRef t, const Dims& wanted, DType type) {
  check_packed(at, name, t, wanted, std::span(&type, 1));
}

// The same place, or the host for a tensor that lies there: ops carry over ids, and the losses of lm_loss.
inline Site or_host(Site at, TensorRef t) {
  if (t.device.is_cpu()) at.device = kHost;
  return at;
}

// Contiguous [M] i32, on the op's device or the host.
inline void check_ids(const Site& at, std::string_view name, TensorRef t, int64_t M) {
  check_dtype(or_host(at, t), name, t, DType::kI32);
  COCA_CHECK(t.shape == Dims{M}, "[{}] {} has shape {}; expected {}", at.op, name, t.shape.text(), Dims{M}.text());
  COCA_CHECK(t.contiguous(), "[{}] {} {} must be contiguous", at.op, name, t.shape.text());
}

// Ids where the op runs: on a device, those that lie on the host are sent into scratch.
inline TensorRef sent_ids(Context& context, TensorRef ids) {
  if (ids.device == context.device()) return ids;
  const MutTensorRef there = context.scratch_tensor(ids.shape, DType::kI32, ScratchUser::kIds);
  context.memory()->upload_copy(there.data, ids.data, ids.bytes());
  return there;
}

inline void check_rank2(const Site& at, std::string_view name, TensorRef t) {
  check_given(at, name, t);
  COCA_CHECK(t.rank() == 2, "[{}] {} {} must have two dimensions", at.op, name, t.shape.text());
}

// x is [B, N, H, D] with an innermost stride of 1.
inline void check_heads(const Site& at, std::string_view name, TensorRef x, const Dims& wanted,
                        std::span<const DType> types = kF32OrBF16) {
  check_dtype(at, name, x, types);
  COCA_CHECK(!x.empty() && x.shape == wanted, "[{}] {} has shape {}; expected {}", at.op, name, x.shape.text(),
             wanted.text());
  COCA_CHECK(x.size(3) <= 1 || x.stride(3) == 1, "[{}] {}: the innermost stride must be 1, not {}", at.op, name,
             x.stride(3));
}

// cos and sin are [1 or B, N, R/2] with 2 * R/2 <= D, for x [B, N, H, D].
inline void check_rows(const Site& at, const RopeRows& rows, TensorRef x) {
  COCA_CHECK(x.rank() == 4, "[{}] x has shape {}; expected [B, N, H, D]", at.op, x.shape.text());
  check_heads(at, "x", x, x.shape);
  COCA_CHECK(rows.cos.rank() == 3 && rows.cos.shape == rows.sin.shape,
             "[{}] cos {} and sin {} must be [1 or B, N, R/2]", at.op, rows.cos.shape.text(), rows.sin.shape.text());
  check_dtype(at, "cos", rows.cos, DType::kF32);
  check_dtype(at, "sin", rows.sin, DType::kF32);
  COCA_CHECK((rows.cos.size(0) == 1 || rows.cos.size(0) == x.size(0)) && rows.cos.size(1) == x.size(1),
             "[{}] cos {} does not fit x {}", at.op, rows.cos.shape.text(), x.shape.text());
  COCA_CHECK(2 * rows.cos.size(2) <= x.size(3), "[{}] {} rotary dims exceed the head dim {}", at.op,
             2 * rows.cos.size(2), x.size(3));
}

}  // namespace coca::ops

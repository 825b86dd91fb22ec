// coca/kernels/args/head_access.h - one head of [B, N, H, D] tensors on the host, f32 or bf16 with an innermost stride
// of 1, as floats.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include "coca/kernels/args/rope.h"
#include "coca/tensor/tensor_ref.h"

namespace coca::ops {

// out [D] = t[b, n, h].
inline void load_head(TensorRef t, int64_t b, int64_t n, int64_t h, float* out) {
  const int64_t at = b * t.stride(0) + n * t.stride(1) + h * t.stride(2), D = t.size(3);
  if (t.dtype == DType::kF32)
    std::copy_n(static_cast<const float*>(t.data) + at, D, out);
  else
    for (int64_t i = 0; i < D; ++i) out[i] = static_cast<float>(static_cast<const BF16*>(t.data)[at + i]);
}

// t[b, n, h] = x * factor.
inline void store_head(const float* x, float factor, MutTensorRef t, int64_t b, int64_t n, int64_t h) {
  const int64_t at = b * t.stride(0) + n * t.stride(1) + h * t.stride(2), D = t.size(3);
  for (int64_t i = 0; i < D; ++i) {
    if (t.dtype == DType::kF32)
      static_cast<float*>(t.data)[at + i] = x[i] * factor;
    else
      static_cast<BF16*>(t.data)[at + i] = BF16(x[i] * factor);
  }
}

// cos and sin [R/2] of one token.
struct AngleRow {
  const float *cos, *sin;
  AngleRow(const RopeRows& rows, int64_t b, int64_t n)
      : cos(rows.cos.view<float, 3>().ptr(rows.cos.size(0) == 1 ? 0 : b, n)),
        sin(rows.sin.view<float, 3>().ptr(rows.sin.size(0) == 1 ? 0 : b, n)) {}
};

}  // namespace coca::ops

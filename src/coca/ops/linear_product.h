// coca/ops/linear_product.h - the matrix product under linear, of fp32 or bf16 operands. Internal to ops.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "coca/kernels/onednn/gemm.h"
#include "coca/ops/linear.h"

namespace coca::ops {

// C[m, n] = op(A) op(B), or C += it, then + bias in every row. A and B of one type, C of either; sums in fp32, C
// rounded once.
struct Product {
  onednn::Trans trans_a = onednn::Trans::kNo, trans_b = onednn::Trans::kNo;
  int64_t m = 0, n = 0, k = 0;
  DType type = DType::kF32;  // of A and B
  const void* a = nullptr;
  int64_t lda = 0;
  const void* b = nullptr;
  int64_t ldb = 0;
  DType c_type = DType::kF32;
  void* c = nullptr;
  int64_t ldc = 0;
  Write write = Write::kAssign;
  const float* bias = nullptr;  // [n] or null
};

// How bf16 operands are multiplied: by oneDNN as they are, or widened to fp32 in blocks where the CPU has no
// generated code for them. fp32 operands go to oneDNN either way.
enum class Bf16Product : uint8_t { kNative, kWidened };

void product(Context&, Bf16Product, const Product&);

}  // namespace coca::ops

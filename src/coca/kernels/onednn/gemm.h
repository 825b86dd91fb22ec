// coca/kernels/onednn/gemm.h - matrix products by oneDNN, fp32 and bf16 (fp32 accumulation).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "coca/base/dtype.h"

namespace coca::onednn {

enum class Trans : uint8_t { kNo, kYes };

// C[m, n] = op(A)[m, k] op(B)[k, n] + beta C, row-major, leading dimensions in elements; beta is 0 or 1, and C is
// not read with 0. T is float or BF16.
template <typename T>
struct Gemm {
  Trans trans_a = Trans::kNo, trans_b = Trans::kNo;
  int64_t m = 0, n = 0, k = 0;
  float beta = 0.0f;
  const T* a = nullptr;
  int64_t lda = 0;
  const T* b = nullptr;
  int64_t ldb = 0;
  float* c = nullptr;
  int64_t ldc = 0;
};
// Return false when oneDNN refuses (never for finite sizes and valid pointers; bf16 where bf16_products() holds).
bool gemm(const Gemm<float>&) noexcept;
bool gemm(const Gemm<BF16>&) noexcept;

// Whether this CPU (and COCA_CPU_TARGET) lets oneDNN multiply bf16 with generated code rather than plain loops:
// from AVX-512 on; with dot-product instructions where the CPU has them.
bool bf16_products() noexcept;

// Limits oneDNN to what the named Highway target offers (SSSE3, SSE4 -> SSE4.1; AVX2 -> AVX2; else all).
// Only has an effect before oneDNN's first product in the process.
void limit_isa(std::string_view cpu_target) noexcept;

}  // namespace coca::onednn

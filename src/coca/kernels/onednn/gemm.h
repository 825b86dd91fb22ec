// coca/kernels/onednn/gemm.h - matrix products by oneDNN.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace coca::onednn {

enum class Trans : uint8_t { kNo, kYes };

// C[m, n] = alpha op(A)[m, k] op(B)[k, n] + beta C, row-major, leading dimensions in elements.
// Returns false when oneDNN refuses (never for finite sizes and valid pointers). beta = 0 does not read C.
struct Gemm {
  Trans trans_a = Trans::kNo, trans_b = Trans::kNo;
  int64_t m = 0, n = 0, k = 0;
  float alpha = 1.0f, beta = 0.0f;
  const float* a = nullptr;
  int64_t lda = 0;
  const float* b = nullptr;
  int64_t ldb = 0;
  float* c = nullptr;
  int64_t ldc = 0;
};
bool gemm_f32(const Gemm&) noexcept;

// Limits oneDNN to what the named Highway target offers (SSSE3, SSE4 -> SSE4.1; AVX2 -> AVX2; else all).
// Only has an effect before oneDNN's first product in the process.
void limit_isa(std::string_view cpu_target) noexcept;

}  // namespace coca::onednn

// coca/kernels/cpu/activation.h - GELU and SwiGLU over n elements (Highway). Outputs may be inputs.
// Elements are float or bf16, the arithmetic is float.
// Math: docs/math/activation.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/base/dtype.h"

namespace coca::cpu {

void gelu_exact_forward(const float* x, float* y, int64_t n) noexcept;
void gelu_exact_forward(const BF16* x, BF16* y, int64_t n) noexcept;
void gelu_exact_backward(const float* x, const float* dy, float* dx, int64_t n) noexcept;
void gelu_exact_backward(const BF16* x, const BF16* dy, BF16* dx, int64_t n) noexcept;
void gelu_tanh_forward(const float* x, float* y, int64_t n) noexcept;
void gelu_tanh_forward(const BF16* x, BF16* y, int64_t n) noexcept;
void gelu_tanh_backward(const float* x, const float* dy, float* dx, int64_t n) noexcept;
void gelu_tanh_backward(const BF16* x, const BF16* dy, BF16* dx, int64_t n) noexcept;
void swiglu_forward(const float* gate, const float* up, float* y, int64_t n) noexcept;
void swiglu_forward(const BF16* gate, const BF16* up, BF16* y, int64_t n) noexcept;
void swiglu_backward(const float* gate, const float* up, const float* dy, float* dgate, float* dup, int64_t n) noexcept;
void swiglu_backward(const BF16* gate, const BF16* up, const BF16* dy, BF16* dgate, BF16* dup, int64_t n) noexcept;

}  // namespace coca::cpu

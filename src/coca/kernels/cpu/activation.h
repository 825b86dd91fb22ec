// coca/kernels/cpu/activation.h - GELU and SwiGLU over n elements (Highway). Outputs may be inputs.
// Math: docs/math/activation.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace coca::cpu {

void gelu_exact_forward(const float* x, float* y, int64_t n) noexcept;
void gelu_exact_backward(const float* x, const float* dy, float* dx, int64_t n) noexcept;
void gelu_tanh_forward(const float* x, float* y, int64_t n) noexcept;
void gelu_tanh_backward(const float* x, const float* dy, float* dx, int64_t n) noexcept;
void swiglu_forward(const float* gate, const float* up, float* y, int64_t n) noexcept;
void swiglu_backward(const float* gate, const float* up, const float* dy, float* dgate, float* dup,
                     int64_t n) noexcept;

}  // namespace coca::cpu

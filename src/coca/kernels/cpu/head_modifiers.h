// coca/kernels/cpu/head_modifiers.h - arithmetic on the heads of consecutive tokens of a sequence (Highway). Elements
// are float or BF16; the arithmetic is fp32. Factors and sums of heads are packed [N, H] f32.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/base/dtype.h"

namespace coca::cpu {

// N tokens of H heads of X numbers. Null data: none.
template <typename T>
struct TokenHeads {
  T* data = nullptr;
  int64_t stride_n = 0, stride_h = 0;
  T* at(int64_t n, int64_t h) const { return data + n * stride_n + h * stride_h; }
};
struct HeadCounts {
  int64_t N, H, X;
};

// The head beside each: y[n, h] = w[h, 0] x[n, h] + w[h, 1] other[n, h], without the second term for a token n with
// starts[n] >= position + n, and for all if `other` is null.
template <typename T>
struct MixTokens {
  HeadCounts counts;
  const float* w;  // [H, 2]
  TokenHeads<const T> x, other;
  const int32_t* starts;  // [N], or null: none
  int64_t position;
  TokenHeads<T> y;
};

// out[n, h] = the sum of a * b.
void dot_heads(const HeadCounts&, TokenHeads<const float> a, TokenHeads<const float> b, float* out) noexcept;
void dot_heads(const HeadCounts&, TokenHeads<const BF16> a, TokenHeads<const BF16> b, float* out) noexcept;
// y[n, h] = x[n, h] * factors[n, h]; y may be x.
void multiply_heads(const HeadCounts&, TokenHeads<const float> x, const float* factors, TokenHeads<float> y) noexcept;
void multiply_heads(const HeadCounts&, TokenHeads<const BF16> x, const float* factors, TokenHeads<BF16> y) noexcept;
// y = x sigmoid(g); dx = dy sigmoid(g), dg = dy x sigmoid'(g).
void gate_heads(const HeadCounts&, TokenHeads<const float> x, TokenHeads<const float> g, TokenHeads<float> y) noexcept;
void gate_heads(const HeadCounts&, TokenHeads<const BF16> x, TokenHeads<const BF16> g, TokenHeads<BF16> y) noexcept;
template <typename T>
struct GateBackward {
  HeadCounts counts;
  TokenHeads<const T> x, g, dy;
  TokenHeads<T> dx, dg;
};
void gate_heads_backward(const GateBackward<float>&) noexcept;
void gate_heads_backward(const GateBackward<BF16>&) noexcept;
void mix_tokens(const MixTokens<float>&) noexcept;
void mix_tokens(const MixTokens<BF16>&) noexcept;
// sums[h, j] += y[j] dy[j + P] - y[j + P] dy[j], the gradient of a turn of pairs (j, j + P) that gave y; [H, P].
void add_turn_gradient(const HeadCounts&, TokenHeads<const float> y, TokenHeads<const float> dy, int64_t P,
                       float* sums) noexcept;
void add_turn_gradient(const HeadCounts&, TokenHeads<const BF16> y, TokenHeads<const BF16> dy, int64_t P,
                       float* sums) noexcept;

// Of n numbers: open = sigmoid(x), slope = sigmoid'(x) (or null); open may be x.
void sigmoids(const float* x, int64_t n, float* open, float* slope) noexcept;
// log(1 + exp(x)) in place, within 4 ulp; not negative.
void softplus(float* x, int64_t n) noexcept;

}  // namespace coca::cpu

// coca/kernels/cpu/attention.h - tiled attention with online softmax, forward and backward (Highway, fp32).
// Math: docs/math/attention.md. The exported functions do one (batch, kv head) group or one query block;
// ops/attention.cc spreads them over threads and provides the work space.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "coca/tensor/view.h"

namespace coca::cpu {

inline constexpr int64_t kAttentionBlock = 64;  // queries and keys a tile; the S tile (16 KiB) stays in L1

struct AttentionParams {
  TensorView<const float, 4> q, k, v;  // [B, N, H, D] [B, S, G, D] [B, S, G, D]
  const float* slopes = nullptr;       // [H] or null
  float scale = 1.0f;
  bool causal = true;
  int64_t query_start = 0;
  TensorView<float, 4> o;              // forward: written
  TensorView<float, 3> lse;            // forward: written (may be empty); backward: read
  TensorView<const float, 4> out, d_o; // backward
  TensorView<float, 4> dq, dk, dv;     // backward: written
};

// K and V of one (b, g), packed: K^T in blocks of kAttentionBlock keys, V row-major, both padded with zeros.
size_t packed_kv_floats(int64_t S, int64_t D) noexcept;
// Packs key block `block` (all blocks together fill `packed`).
void attention_pack_block(const AttentionParams&, int64_t b, int64_t g, int64_t block, float* packed) noexcept;

// One query block of one head. work: attention_forward_floats(D) floats of the calling thread.
size_t attention_forward_floats(int64_t D) noexcept;
void attention_forward_block(const AttentionParams&, int64_t b, int64_t h, int64_t query_block, const float* packed,
                             float* work) noexcept;

// A few queries against many keys (decoding): row by row, nothing packed. work: S floats.
void attention_forward_row(const AttentionParams&, int64_t b, int64_t h, int64_t n, float* work) noexcept;

// All gradients of one (b, g): dk, dv of the group and dq of its query heads.
size_t attention_backward_floats(int64_t N, int64_t S, int64_t D) noexcept;
void attention_backward_group(const AttentionParams&, int64_t b, int64_t g, float* work) noexcept;

}  // namespace coca::cpu

// coca/kernels/cpu/attention.h - tiled attention with online softmax, forward and backward (Highway).
// Math: docs/math/attention.md. Tensors hold T = float or BF16; sums, softmax and gradients being summed are fp32. The
// exported functions do one key block, one query block or one part of the keys; attention_op.cc spreads them over
// threads and provides scratch memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "coca/base/dtype.h"
#include "coca/tensor/view.h"

namespace coca::cpu {

inline constexpr int64_t kAttentionBlock = 64;  // queries and keys per tile; the S tile (16 KiB) stays in L1

inline constexpr int64_t kPad = 16;    // floats in the widest vector (AVX-512); a multiple of every narrower one
inline constexpr int64_t kStrip = 16;  // queries per strip of a tile that the mask cuts
inline int64_t padded(int64_t n) { return (n + kPad - 1) / kPad * kPad; }

// How tiles are multiplied: in fp32 (bf16 tensors are widened when they are packed), or as bf16 with the dot-product
// instructions of avx512_bf16, which also rounds probabilities and their gradients to bf16.
enum class TileMath : uint8_t { kF32, kBf16Dot };
bool has_bf16_dot() noexcept;  // this CPU, at the active SIMD target

enum class StoreDv : uint8_t { kWrite, kAdd };

template <typename T>
struct AttentionParams {
  TensorView<const T, 4> q, k, v;                 // [B, N, H, E] [B, S, G, E] [B, S, G, D]
  const float* slopes = nullptr;                  // [H] or null
  TensorView<const float, 3> decay, query_decay;  // [B, H, S] [B, H, N], any strides; empty: none
  float scale = 1.0f;                             // positive
  bool causal = true;                             // false: every query attends to all keys
  int64_t window = 0;  // keys before m + 1 - window are not visible, with m the query's position; 0: all
  int64_t hidden = 0;  // causal: the last visible key is m - hidden; negative: some later keys are visible too
  int64_t query_start = 0;
  // ALiBi: the largest distance of a key and the largest position of a query that count; 0: no limit.
  int64_t most_distance = 0, most_position = 0;
  // ALiBi: a query at m is at position offset + m * query_step, and key s at s * key_step.
  int64_t offset = 0, query_step = 1, key_step = 1;
  TensorView<const int32_t, 2> document_start;  // [B, N]; empty: one document
  TensorView<T, 4> o;                           // forward: written
  TensorView<float, 3> lse;                     // forward: written (may be empty); backward: read
  TensorView<const T, 4> out, d_o;              // backward
  TensorView<T, 4> dq, dk, dv;                  // backward: written
  TensorView<float, 3> ddecay, dquery_decay;    // backward: added to, once all parts are done
  StoreDv store_dv = StoreDv::kWrite;
  // Keys in parts: fp32 sums to which the call adds, instead of o, dq, dk and dv; empty: these are all keys.
  TensorView<float, 4> o_sum, dq_sum, dk_sum, dv_sum;
  const AttentionParams* far =
      nullptr;  // forward: more keys under the same softmax, with q, k, v and rules of their own
};

// Of q and k, and of v and o.
struct HeadWidths {
  int64_t E, D;
};
template <typename T>
HeadWidths widths_of(const AttentionParams<T>& p) {
  return {p.q.size(3), p.v.size(3)};
}

inline int64_t attention_blocks(int64_t n) { return (n + kAttentionBlock - 1) / kAttentionBlock; }

struct IndexRange {
  int64_t begin, end;  // [begin, end)
};
// The visible keys of query n of batch b (none if begin >= end). Both ends grow with n, and the ranges of neighbours
// leave no gap between them.
template <typename T>
IndexRange seen_keys(const AttentionParams<T>& p, int64_t b, int64_t n) {
  const int64_t m = p.query_start + n, S = p.k.size(1);
  int64_t begin = p.window > 0 ? std::max<int64_t>(0, m + 1 - p.window) : 0;
  if (!p.document_start.empty()) begin = std::max<int64_t>(begin, p.document_start(b, n));
  return {begin, p.causal ? std::min(S, m + 1 - p.hidden) : S};
}
// The queries of batch b that attend to some of these keys; none outside the range does.
template <typename T>
IndexRange seeing_queries(const AttentionParams<T>& p, int64_t b, IndexRange keys) {
  const int64_t N = p.q.size(1);
  const int64_t begin = p.causal ? std::clamp<int64_t>(keys.begin + p.hidden - p.query_start, 0, N) : 0;
  int64_t end = p.window > 0 ? std::min(N, keys.end + p.window - 1 - p.query_start) : N;
  if (!p.document_start.empty() && N > 0) {
    const int32_t* starts = p.document_start.ptr(b, 0);
    end = std::min(end, std::lower_bound(starts, starts + N, keys.end) - starts);
  }
  return {begin, std::max(begin, end)};
}

// K and V of one (b, g), packed and padded with zeros: bytes of a key block, and packing one.
size_t attention_packed_bytes(TileMath, HeadWidths) noexcept;
// All key blocks of one (b, g), and those of `far`.
struct PackedKeys {
  const void* keys;
  const void* far = nullptr;
};
// One query block of one head. work: attention_forward_bytes() of the calling thread.
size_t attention_forward_bytes(HeadWidths) noexcept;
// A few queries against many keys: row by row, nothing packed. work: S (and far's) + D floats.

// Backward for keys [block0, block1) x kAttentionBlock of one (b, g): dk and dv of these keys, and the part of dq of
// the group's heads that comes from these keys.
struct AttentionPart {
  int64_t b, g, block0, block1;
  float* dq;  // null: these are all keys, and dq is written; else [H/G, attention_blocks(N) * 64, padded E] written
  // With decay. Sums of the scores' gradients: over the part's keys [H/G, N] written, and over the queries [H/G,
  // attention_blocks(S) * 64], of which the part's keys are written.
  float *row_sums = nullptr, *column_sums = nullptr;
};
size_t attention_backward_bytes(TileMath, int64_t N, int64_t blocks, HeadWidths) noexcept;
size_t attention_partial_dq_floats(int64_t N, int64_t group, int64_t E) noexcept;

template <typename T>
struct AttentionKernels {
  static void pack_block(TileMath, const AttentionParams<T>&, int64_t b, int64_t g, int64_t block,
                         void* packed) noexcept;
  static void forward_block(TileMath, const AttentionParams<T>&, int64_t b, int64_t h, int64_t query_block,
                            const PackedKeys& packed, void* work) noexcept;
  static void forward_row(const AttentionParams<T>&, int64_t b, int64_t h, int64_t n, float* work) noexcept;
  static void backward_part(TileMath, const AttentionParams<T>&, const AttentionPart&, void* work) noexcept;
  // dq of one (b, h) and query block = scale * sum over parts of their dq, in their order.
  static void sum_dq(const AttentionParams<T>&, int64_t b, int64_t h, int64_t query_block, const float* partial,
                     int64_t parts, int64_t part_stride) noexcept;
};

}  // namespace coca::cpu

// coca/kernels/cpu/attention_tile-inl.h - the parts of a tile of 64 queries by 64 keys besides its products: packed
// operands and visible ranges. Per-target header: included inside foreach_target.
// Tensors hold S = float or BF16; operands are Op = float or Bf16Pair. Pairs are formed
//   over the head dim and over queries from neighbours (2i, 2i + 1),
//   over keys from (c, c + 16) in groups of 32, so that probabilities become pairs lane by lane.
// SPDX-License-Identifier: Apache-2.0
#if defined(COCA_KERNELS_CPU_ATTENTION_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef COCA_KERNELS_CPU_ATTENTION_TILE_INL_H_
#undef COCA_KERNELS_CPU_ATTENTION_TILE_INL_H_
#else
#define COCA_KERNELS_CPU_ATTENTION_TILE_INL_H_
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "coca/kernels/cpu/attention.h"
#include "coca/kernels/cpu/bf16-inl.h"
#include "coca/kernels/cpu/block_gemm-inl.h"
#include "coca/kernels/cpu/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
constexpr int64_t kTile = kAttentionBlock;

// Steps of an inner dimension of n: the head dim or queries, and keys (n a multiple of 32 unless it is the last).
template <class Op>
constexpr int64_t steps(int64_t n) {
  return kPairs<Op> ? (n + 1) / 2 : n;
}
template <class Op>
constexpr int64_t key_steps(int64_t n) {
  return kPairs<Op> ? (n + 31) / 32 * 16 : n;
}
// Width of a packed row over the head dim.
template <class Op>
constexpr int64_t row_steps(int64_t D) {
  return kPairs<Op> ? steps<Op>(D) : padded(D);
}

// dst [rows, row_steps(D)] = src rows, for products over the head dim.
template <class Op, class S>
HWY_INLINE void pack_rows(const S* src, int64_t stride, int64_t rows, int64_t D, Op* HWY_RESTRICT dst) {
  const int64_t width = row_steps<Op>(D);
  for (int64_t r = 0; r < rows; ++r) {
    const S* in = src + r * stride;
    Op* out = dst + r * width;
    if constexpr (kPairs<Op>) {
      for (int64_t i = 0; i + 1 < D; i += 2) out[i / 2] = make_pair(in[i], in[i + 1]);
      if (D % 2) out[D / 2] = make_pair(in[D - 1], BF16());
    } else {
      for (int64_t i = 0; i < D; ++i) out[i] = static_cast<float>(in[i]);
      for (int64_t i = D; i < width; ++i) out[i] = 0.0f;
    }
  }
}

// dst [steps(D), kTile] = transpose of src rows (at most kTile), zero beyond: the other operand of such products.
template <class Op, class S>
HWY_INLINE void pack_transposed(const S* src, int64_t stride, int64_t rows, int64_t D, Op* HWY_RESTRICT dst) {
  for (int64_t i = 0; i < steps<Op>(D); ++i) {
    Op* out = dst + i * kTile;
    for (int64_t r = 0; r < rows; ++r) {
      const S* in = src + r * stride;
      if constexpr (kPairs<Op>)
        out[r] = make_pair(in[2 * i], 2 * i + 1 < D ? in[2 * i + 1] : BF16());
      else
        out[r] = static_cast<float>(in[i]);
    }
    for (int64_t r = rows; r < kTile; ++r) out[r] = Op(0);
  }
}

// dst [steps, padded(D)] with each step's row(s) first(step) and second(step) of src, zero from `rows` on.
template <class Op, class S, class First, class Second>
HWY_INLINE void pack_steps(const S* src, int64_t stride, int64_t rows, int64_t count, int64_t D, const First& first,
                           const Second& second, Op* HWY_RESTRICT dst) {
  const int64_t Dp = padded(D);
  for (int64_t k = 0; k < count; ++k) {
    Op* out = dst + k * Dp;
    const int64_t r0 = first(k), r1 = second(k);
    for (int64_t i = 0; i < Dp; ++i) {
      if constexpr (kPairs<Op>)
        out[i] =
            i < D ? make_pair(r0 < rows ? src[r0 * stride + i] : BF16(), r1 < rows ? src[r1 * stride + i] : BF16()) : 0;
      else
        out[i] = i < D && r0 < rows ? static_cast<float>(src[r0 * stride + i]) : 0.0f;
    }
  }
}
// For products over the (at most kTile) keys of a block: [key_steps(kTile), padded(D)].
template <class Op, class S>
HWY_INLINE void pack_keys(const S* src, int64_t stride, int64_t rows, int64_t D, Op* dst) {
  const auto first = [](int64_t k) { return kPairs<Op> ? k / 16 * 32 + k % 16 : k; };
  const auto second = [](int64_t k) { return k / 16 * 32 + k % 16 + 16; };
  pack_steps(src, stride, rows, key_steps<Op>(kTile), D, first, second, dst);
}
// For products over queries: [steps(rows), padded(D)].
template <class Op, class S>
HWY_INLINE void pack_queries(const S* src, int64_t stride, int64_t rows, int64_t D, Op* dst) {
  const auto first = [](int64_t k) { return kPairs<Op> ? 2 * k : k; };
  const auto second = [](int64_t k) { return 2 * k + 1; };
  pack_steps(src, stride, rows, steps<Op>(rows), D, first, second, dst);
}

// The visible keys of a query, relative to a block's first: [begin, end), both within the block, both growing with n.
struct Seen {
  int64_t begin, end;
  bool operator==(const Seen&) const = default;
};
template <class S>
HWY_INLINE Seen seen_in_block(const AttentionParams<S>& p, int64_t b, int64_t n, int64_t key0) {
  const IndexRange seen = seen_keys(p, b, n);
  return {std::clamp<int64_t>(seen.begin - key0, 0, kTile), std::clamp<int64_t>(seen.end - key0, 0, kTile)};
}

// Visits the strips of a tile: body(first row, rows, columns), columns = all keys visible to a row of the strip, from a
// multiple of 32 on. A tile in which all rows have the same visible keys is one strip.
template <class S, class Body>
HWY_INLINE void for_strips(const AttentionParams<S>& p, int64_t b, int64_t n0, int64_t rows, int64_t key0,
                           const Body& body) {
  const auto seen = [&](int64_t r) HWY_ATTR { return seen_in_block(p, b, n0 + r, key0); };
  const int64_t height = seen(0) == seen(rows - 1) ? rows : kStrip;
  for (int64_t r = 0; r < rows; r += height) {
    const int64_t strip = std::min(height, rows - r);
    const Seen columns{seen(r).begin / 32 * 32, seen(r + strip - 1).end};
    if (columns.begin < columns.end) body(r, strip, columns);
  }
}

// The factor of ALiBi's slope, for a query at m and a key at s.
template <class S>
HWY_INLINE int64_t biased_distance(const AttentionParams<S>& p, int64_t m, int64_t s) {
  const int64_t place = p.offset + m * p.query_step;
  const int64_t distance = std::abs((p.most_position > 0 ? std::min(place, p.most_position) : place) - s * p.key_step);
  return p.most_distance > 0 ? std::min(distance, p.most_distance) : distance;
}

// The decays of one head's keys of a block, zero beyond the last key.
template <class S>
HWY_INLINE void load_decay(const AttentionParams<S>& p, int64_t b, int64_t h, int64_t key0, float* decay) {
  if (p.decay.empty()) return;
  const int64_t rows = std::min(kTile, p.k.size(1) - key0), step = p.decay.stride(2);
  const float* from = p.decay.ptr(b, h, key0);
  for (int64_t c = 0; c < rows; ++c) decay[c] = from[c * step];
  std::fill(decay + rows, decay + kTile, 0.0f);
}

// Scores to which nothing is added stay unscaled: the factor is left to the softmax.
template <class S>
HWY_INLINE float factor_of(const AttentionParams<S>& p) {
  return p.slopes || !p.decay.empty() ? 1.0f : p.scale;
}

// Turns one row of products into scores: scaled, with the decay (those of the block's keys are given) and the ALiBi
// bias -slope (m - s), -inf for keys that are not visible.
template <class S>
HWY_INLINE void finish_scores(const AttentionParams<S>& p, int64_t b, int64_t h, int64_t n, int64_t key0,
                              const float* decay, const Seen& columns, float* row) {
  const Seen seen = seen_in_block(p, b, n, key0);
  const int64_t width = padded(columns.end), m = p.query_start + n;
  if (!p.decay.empty()) {
    const float own = p.query_decay(b, h, n);
    for_lanes(width - columns.begin, [&](auto d, int64_t i) HWY_ATTR {
      const int64_t c = columns.begin + i;
      const auto change = hn::Sub(hn::Set(d, own), hn::LoadU(d, decay + c));
      hn::StoreU(hn::MulAdd(hn::LoadU(d, row + c), hn::Set(d, p.scale), change), d, row + c);
    });
  }
  const float slope = p.slopes ? p.slopes[h] : 0.0f, scale = p.decay.empty() ? p.scale : 1.0f;
  for (int64_t c = seen.begin; p.slopes && c < seen.end; ++c)
    row[c] = row[c] * scale - slope * static_cast<float>(biased_distance(p, m, key0 + c));
  for (int64_t c = columns.begin; c < std::min(seen.begin, width); ++c) row[c] = kNegInf;
  for (int64_t c = std::max(seen.end, columns.begin); c < width; ++c) row[c] = kNegInf;
}

// Query rows of a tile are computed in fp32 and leave as S.
template <class S>
HWY_INLINE void store_row(const float* row, float factor, int64_t D, S* out) {
  for_lanes(D, [&](auto d, int64_t i)
                   HWY_ATTR { store_f32(hn::Mul(hn::LoadU(d, row + i), hn::Set(d, factor)), d, out + i); });
}

// ... or is added to the sums of keys that come in parts.
template <class S>
HWY_INLINE void store_or_add(const float* row, float factor, int64_t D, S* out, float* sum) {
  if (!sum) return store_row(row, factor, D, out);
  for_lanes(D, [&](auto d, int64_t i) HWY_ATTR {
    hn::StoreU(hn::MulAdd(hn::LoadU(d, row + i), hn::Set(d, factor), hn::LoadU(d, sum + i)), d, sum + i);
  });
}
template <class View>
HWY_INLINE float* sum_at(const View& sums, int64_t b, int64_t n, int64_t h) {
  return sums.empty() ? nullptr : sums.ptr(b, n, h);
}

template <class A, class B>
HWY_INLINE float dot(const A* a, const B* b, int64_t n) {
  return sum_of(n, [&](auto d, int64_t i) HWY_ATTR { return hn::Mul(load_f32(d, a + i), load_f32(d, b + i)); });
}

struct RowState {
  float max[kTile], sum[kTile];
};

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

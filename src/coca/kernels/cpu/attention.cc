// Tiles of 64 queries by 64 keys. Tiles on the causal diagonal are cut into strips of 16 queries, each with only
// the keys it can see. All operands of a product are packed (contiguous, zero-padded to whole vectors), so one
// block product serves forward and backward: S = Q K^T, O += P V, dV += P^T dO, dP = dO V^T, dK += dS^T Q, dQ += dS K.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "coca/kernels/cpu/block_gemm-inl.h"
#include "coca/kernels/cpu/math-inl.h"

// Per target: needs the vector length only through padding to kPad floats, the longest vector in use.
#ifndef COCA_ATTENTION_SHARED
#define COCA_ATTENTION_SHARED
namespace coca::cpu {
inline constexpr int64_t kPad = 16;    // floats in the widest vector (AVX-512); a multiple of every narrower one
inline constexpr int64_t kStrip = 16;  // queries per strip of a diagonal tile
inline constexpr int64_t kTile = kAttentionBlock;
inline int64_t padded(int64_t n) { return (n + kPad - 1) / kPad * kPad; }
inline int64_t blocks(int64_t n) { return (n + kTile - 1) / kTile; }
}  // namespace coca::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
constexpr float kNegInf = -std::numeric_limits<float>::infinity();

// dst [rows_padded, Dp] = factor * src rows, zero beyond; src rows at src + r * stride.
HWY_INLINE void pack_rows(const float* src, int64_t stride, int64_t rows, int64_t rows_padded, int64_t D, float factor,
                          float* HWY_RESTRICT dst) {
  const int64_t Dp = padded(D);
  for (int64_t r = 0; r < rows; ++r) {
    float* out = dst + r * Dp;
    for (int64_t i = 0; i < D; ++i) out[i] = src[r * stride + i] * factor;
    for (int64_t i = D; i < Dp; ++i) out[i] = 0.0f;
  }
  if (rows_padded > rows)
    std::memset(dst + rows * Dp, 0, static_cast<size_t>((rows_padded - rows) * Dp) * sizeof(float));
}

// dst [D, kTile] = transpose of src rows (at most kTile), zero beyond.
HWY_INLINE void pack_transposed(const float* src, int64_t stride, int64_t rows, int64_t D, float* HWY_RESTRICT dst) {
  for (int64_t i = 0; i < D; ++i) {
    float* out = dst + i * kTile;
    for (int64_t r = 0; r < rows; ++r) out[r] = src[r * stride + i];
    for (int64_t r = rows; r < kTile; ++r) out[r] = 0.0f;
  }
}

// How many keys of [key0, key0 + kTile) the query at position m sees.
HWY_INLINE int64_t visible_keys(const AttentionParams& p, int64_t m, int64_t key0) {
  const int64_t end = p.causal ? std::min(p.k.size(1), m + 1) : p.k.size(1);
  return std::clamp<int64_t>(end - key0, 0, kTile);
}

// Walks the strips of a tile: body(first row, rows, columns), columns = keys seen by the strip's last row.
template <class Body>
HWY_INLINE void for_strips(const AttentionParams& p, int64_t m0, int64_t rows, int64_t key0, const Body& body) {
  if (visible_keys(p, m0, key0) == visible_keys(p, m0 + rows - 1, key0)) {
    body(0, rows, visible_keys(p, m0, key0));
    return;
  }
  for (int64_t r = 0; r < rows; r += kStrip) {
    const int64_t strip = std::min(kStrip, rows - r);
    const int64_t columns = visible_keys(p, m0 + r + strip - 1, key0);
    if (columns > 0) body(r, strip, columns);
  }
}

// Adds the ALiBi bias -slope (m - s) to one row of scores.
HWY_INLINE void add_alibi(float slope, int64_t m, int64_t key0, int64_t columns, float* row) {
  for (int64_t c = 0; c < columns; ++c) row[c] -= slope * static_cast<float>(m - key0 - c);
}

void pack_block(const AttentionParams& p, int64_t b, int64_t g, int64_t block, float* packed) {
  const int64_t S = p.k.size(1), D = p.k.size(3), key0 = block * kTile, rows = std::min(kTile, S - key0);
  float* k_t = packed + block * D * kTile;
  float* v = packed + blocks(S) * D * kTile + key0 * padded(D);
  pack_transposed(p.k.ptr(b, key0, g), p.k.stride(1), rows, D, k_t);
  pack_rows(p.v.ptr(b, key0, g), p.v.stride(1), rows, kTile, D, 1.0f, v);
}

struct RowState {
  float max[kTile], sum[kTile];
};

// Online softmax of one strip: scores become probabilities relative to the running maximum; o rows are rescaled.
HWY_INLINE void softmax_strip(const AttentionParams& p, float slope, int64_t m0, int64_t key0, int64_t r0, int64_t rows,
                              int64_t columns, float* s, RowState& state, float* o, int64_t Dp) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), width = padded(columns);
  for (int64_t r = r0; r < r0 + rows; ++r) {
    float* row = s + r * kTile;
    const int64_t seen = visible_keys(p, m0 + r, key0);
    if (p.slopes) add_alibi(slope, m0 + r, key0, seen, row);
    for (int64_t c = seen; c < width; ++c) row[c] = kNegInf;
    auto vmax = hn::Set(d, state.max[r]);
    for (int64_t c = 0; c < width; c += lanes) vmax = hn::Max(vmax, hn::LoadU(d, row + c));
    const float new_max = hn::GetLane(hn::MaxOfLanes(d, vmax));
    if (new_max == kNegInf) {  // nothing seen yet: probabilities are zero, and -inf - -inf must not be formed
      std::memset(row, 0, static_cast<size_t>(width) * sizeof(float));
      continue;
    }
    const auto base = hn::Set(d, new_max);
    auto vsum = hn::Zero(d);
    for (int64_t c = 0; c < width; c += lanes) {
      const auto e = exp_of(d, hn::Sub(hn::LoadU(d, row + c), base));
      vsum = hn::Add(vsum, e);
      hn::StoreU(e, d, row + c);
    }
    const float factor = std::exp(state.max[r] - new_max);  // 0 for the first keys
    state.sum[r] = state.sum[r] * factor + hn::GetLane(hn::SumOfLanes(d, vsum));
    if (factor != 1.0f && state.max[r] != kNegInf) {
      const auto f = hn::Set(d, factor);
      for (int64_t c = 0; c < Dp; c += lanes) hn::StoreU(hn::Mul(hn::LoadU(d, o + r * Dp + c), f), d, o + r * Dp + c);
    }
    state.max[r] = new_max;
  }
}

void forward_block(const AttentionParams& p, int64_t b, int64_t h, int64_t query_block, const float* packed,
                   float* work) {
  const int64_t N = p.q.size(1), D = p.q.size(3), S = p.k.size(1), Dp = padded(D);
  const int64_t n0 = query_block * kTile, rows = std::min(kTile, N - n0), m0 = p.query_start + n0;
  float* q = work;             // [kTile, Dp]
  float* o = q + kTile * Dp;   // [kTile, Dp]
  float* s = o + kTile * Dp;   // [kTile, kTile]
  pack_rows(p.q.ptr(b, n0, h), p.q.stride(1), rows, rows, D, p.scale, q);
  std::memset(o, 0, static_cast<size_t>(rows * Dp) * sizeof(float));
  RowState state;
  std::fill_n(state.max, kTile, kNegInf);
  std::fill_n(state.sum, kTile, 0.0f);
  const float slope = p.slopes ? p.slopes[h] : 0.0f;
  const int64_t key_end = p.causal ? std::clamp<int64_t>(m0 + rows, 0, S) : S;
  for (int64_t key0 = 0; key0 < key_end; key0 += kTile) {
    const float* k_t = packed + key0 / kTile * D * kTile;
    const float* v = packed + blocks(S) * D * kTile + key0 * Dp;
    for_strips(p, m0, rows, key0, [&](int64_t r0, int64_t strip, int64_t columns) HWY_ATTR {
      const int64_t width = padded(columns);
      block_gemm<false>({strip, width, D, q + r0 * Dp, Dp, 1, k_t, kTile, s + r0 * kTile, kTile});
      softmax_strip(p, slope, m0, key0, r0, strip, columns, s, state, o, Dp);
      block_gemm<true>({strip, Dp, columns, s + r0 * kTile, kTile, 1, v, Dp, o + r0 * Dp, Dp});
    });
  }
  for (int64_t r = 0; r < rows; ++r) {
    const float inverse = state.sum[r] > 0.0f || std::isnan(state.sum[r]) ? 1.0f / state.sum[r] : 0.0f;
    float* out = p.o.ptr(b, n0 + r, h);
    for (int64_t i = 0; i < D; ++i) out[i] = o[r * Dp + i] * inverse;
    if (!p.lse.empty()) *p.lse.ptr(b, h, n0 + r) = state.sum[r] == 0.0f ? kNegInf : state.max[r] + std::log(state.sum[r]);
  }
}

HWY_INLINE float dot(const float* a, const float* b, int64_t n) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    s0 = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), s0);
    s1 = hn::MulAdd(hn::LoadU(d, a + i + lanes), hn::LoadU(d, b + i + lanes), s1);
  }
  for (; i + lanes <= n; i += lanes) s0 = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), s0);
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(s0, s1)));
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

HWY_INLINE void axpy(float factor, const float* x, int64_t n, float* y) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto f = hn::Set(d, factor);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(hn::MulAdd(f, hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, y + i);
  for (; i < n; ++i) y[i] += factor * x[i];
}

void forward_row(const AttentionParams& p, int64_t b, int64_t h, int64_t n, float* scores) {
  const int64_t D = p.q.size(3), S = p.k.size(1), g = h / (p.q.size(2) / p.k.size(2)), m = p.query_start + n;
  const int64_t seen = p.causal ? std::clamp<int64_t>(m + 1, 0, S) : S;
  const float* q = p.q.ptr(b, n, h);
  float largest = kNegInf;
  for (int64_t s = 0; s < seen; ++s) {
    float score = dot(q, p.k.ptr(b, s, g), D) * p.scale;
    if (p.slopes) score -= p.slopes[h] * static_cast<float>(m - s);
    scores[s] = score;
    largest = std::max(largest, score);
  }
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto base = hn::Set(d, largest);
  auto vsum = hn::Zero(d);
  int64_t s = 0;
  for (; s + lanes <= seen; s += lanes) {
    const auto e = exp_of(d, hn::Sub(hn::LoadU(d, scores + s), base));
    vsum = hn::Add(vsum, e);
    hn::StoreU(e, d, scores + s);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, vsum));
  for (; s < seen; ++s) sum += scores[s] = std::exp(scores[s] - largest);
  float* o = p.o.ptr(b, n, h);
  std::memset(o, 0, static_cast<size_t>(D) * sizeof(float));
  for (s = 0; s < seen; ++s) axpy(scores[s] / sum, p.v.ptr(b, s, g), D, o);
  if (!p.lse.empty()) *p.lse.ptr(b, h, n) = seen == 0 ? kNegInf : largest + std::log(sum);
}

// Work space of one group's backward pass, all row-major and zero-padded.
struct BackwardWork {
  float *k, *k_t, *v_t;      // [Sp, Dp], blocks of [D, kTile], blocks of [D, kTile]
  float *dk, *dv;            // [Sp, Dp]
  float *q, *d_o, *dq;       // [Np, Dp] of one query head; q is scaled
  float *delta;              // [Np] sum over d of o * do
  float *p, *ds;             // [kTile, kTile]
};

BackwardWork carve(float* work, int64_t N, int64_t S, int64_t D) {
  const int64_t Dp = padded(D), Sp = blocks(S) * kTile, Np = blocks(N) * kTile;
  BackwardWork w;
  const auto take = [&work](int64_t floats) {
    float* at = work;
    work += floats;
    return at;
  };
  w.k = take(Sp * Dp), w.k_t = take(Sp * Dp), w.v_t = take(Sp * Dp);
  w.dk = take(Sp * Dp), w.dv = take(Sp * Dp);
  w.q = take(Np * Dp), w.d_o = take(Np * Dp), w.dq = take(Np * Dp);
  w.delta = take(Np);
  w.p = take(kTile * kTile), w.ds = take(kTile * kTile);
  return w;
}

// p = exp(s - lse); ds = p (dp - delta), for one strip; masked columns become zero in both.
HWY_INLINE void probabilities_strip(const AttentionParams& a, float slope, int64_t m0, int64_t key0, int64_t r0,
                                    int64_t rows, int64_t columns, const float* lse, const float* delta, float* p,
                                    float* ds) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), width = padded(columns);
  for (int64_t r = r0; r < r0 + rows; ++r) {
    float* prow = p + r * kTile;
    float* drow = ds + r * kTile;
    const int64_t seen = visible_keys(a, m0 + r, key0);
    if (a.slopes) add_alibi(slope, m0 + r, key0, seen, prow);
    for (int64_t c = seen; c < width; ++c) prow[c] = kNegInf;
    const auto base = hn::Set(d, lse[r]), minus = hn::Set(d, delta[r]);
    for (int64_t c = 0; c < width; c += lanes) {
      const auto e = exp_of(d, hn::Sub(hn::LoadU(d, prow + c), base));
      hn::StoreU(e, d, prow + c);
      hn::StoreU(hn::Mul(e, hn::Sub(hn::LoadU(d, drow + c), minus)), d, drow + c);
    }
  }
}

// Gradients of one query head against all keys of its group.
void backward_head(const AttentionParams& a, int64_t b, int64_t g, int64_t h, const BackwardWork& w) {
  const int64_t N = a.q.size(1), D = a.q.size(3), S = a.k.size(1), Dp = padded(D);
  pack_rows(a.q.ptr(b, 0, h), a.q.stride(1), N, N, D, a.scale, w.q);
  pack_rows(a.d_o.ptr(b, 0, h), a.d_o.stride(1), N, N, D, 1.0f, w.d_o);
  std::memset(w.dq, 0, static_cast<size_t>(N * Dp) * sizeof(float));
  for (int64_t n = 0; n < N; ++n) w.delta[n] = dot(a.out.ptr(b, n, h), w.d_o + n * Dp, D);
  const float slope = a.slopes ? a.slopes[h] : 0.0f;
  const float* lse = a.lse.ptr(b, h);
  for (int64_t key0 = 0; key0 < S; key0 += kTile) {
    const float* k_t = w.k_t + key0 / kTile * D * kTile;
    const float* v_t = w.v_t + key0 / kTile * D * kTile;
    // The first query that sees key0, rounded down to a block.
    const int64_t first = a.causal ? std::max<int64_t>(0, key0 - a.query_start) / kTile * kTile : 0;
    for (int64_t n0 = first; n0 < N; n0 += kTile) {
      const int64_t rows = std::min(kTile, N - n0), m0 = a.query_start + n0;
      for_strips(a, m0, rows, key0, [&](int64_t r0, int64_t strip, int64_t columns) HWY_ATTR {
        const int64_t width = padded(columns), at = (n0 + r0) * Dp;
        float* p = w.p + r0 * kTile;
        float* ds = w.ds + r0 * kTile;
        block_gemm<false>({strip, width, D, w.q + at, Dp, 1, k_t, kTile, p, kTile});
        block_gemm<false>({strip, width, D, w.d_o + at, Dp, 1, v_t, kTile, ds, kTile});
        probabilities_strip(a, slope, m0, key0, r0, strip, columns, lse + n0, w.delta + n0, w.p, w.ds);
        block_gemm<true>({columns, Dp, strip, p, 1, kTile, w.d_o + at, Dp, w.dv + key0 * Dp, Dp});
        block_gemm<true>({columns, Dp, strip, ds, 1, kTile, w.q + at, Dp, w.dk + key0 * Dp, Dp});
        block_gemm<true>({strip, Dp, columns, ds, kTile, 1, w.k + key0 * Dp, Dp, w.dq + at, Dp});
      });
    }
  }
  for (int64_t n = 0; n < N; ++n) {
    float* out = a.dq.ptr(b, n, h);
    for (int64_t i = 0; i < D; ++i) out[i] = w.dq[n * Dp + i] * a.scale;
  }
  (void)g;
}

void backward_group(const AttentionParams& a, int64_t b, int64_t g, float* work) {
  const int64_t N = a.q.size(1), D = a.q.size(3), S = a.k.size(1), Dp = padded(D), group = a.q.size(2) / a.k.size(2);
  const BackwardWork w = carve(work, N, S, D);
  pack_rows(a.k.ptr(b, 0, g), a.k.stride(1), S, blocks(S) * kTile, D, 1.0f, w.k);
  for (int64_t key0 = 0; key0 < S; key0 += kTile) {
    const int64_t rows = std::min(kTile, S - key0), at = key0 / kTile * D * kTile;
    pack_transposed(a.k.ptr(b, key0, g), a.k.stride(1), rows, D, w.k_t + at);
    pack_transposed(a.v.ptr(b, key0, g), a.v.stride(1), rows, D, w.v_t + at);
  }
  std::memset(w.dk, 0, static_cast<size_t>(S * Dp) * sizeof(float));
  std::memset(w.dv, 0, static_cast<size_t>(S * Dp) * sizeof(float));
  for (int64_t h = g * group; h < (g + 1) * group; ++h) backward_head(a, b, g, h, w);
  for (int64_t s = 0; s < S; ++s) {
    float* dk = a.dk.ptr(b, s, g);
    float* dv = a.dv.ptr(b, s, g);
    for (int64_t i = 0; i < D; ++i) dk[i] = w.dk[s * Dp + i];  // q was scaled, so dk needs no factor
    for (int64_t i = 0; i < D; ++i) dv[i] = w.dv[s * Dp + i];
  }
}

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(pack_block);
HWY_EXPORT(forward_block);
HWY_EXPORT(forward_row);
HWY_EXPORT(backward_group);

size_t packed_kv_floats(int64_t S, int64_t D) noexcept {
  return static_cast<size_t>(blocks(S) * kTile * (D + padded(D)));
}
void attention_pack_block(const AttentionParams& p, int64_t b, int64_t g, int64_t block, float* packed) noexcept {
  HWY_DYNAMIC_DISPATCH(pack_block)(p, b, g, block, packed);
}
size_t attention_forward_floats(int64_t D) noexcept {
  return static_cast<size_t>(kTile * (2 * padded(D) + kTile));
}
void attention_forward_block(const AttentionParams& p, int64_t b, int64_t h, int64_t query_block, const float* packed,
                             float* work) noexcept {
  HWY_DYNAMIC_DISPATCH(forward_block)(p, b, h, query_block, packed, work);
}
void attention_forward_row(const AttentionParams& p, int64_t b, int64_t h, int64_t n, float* work) noexcept {
  HWY_DYNAMIC_DISPATCH(forward_row)(p, b, h, n, work);
}
size_t attention_backward_floats(int64_t N, int64_t S, int64_t D) noexcept {
  const int64_t Dp = padded(D), Sp = blocks(S) * kTile, Np = blocks(N) * kTile;
  return static_cast<size_t>(5 * Sp * Dp + 3 * Np * Dp + Np + 2 * kTile * kTile);
}
void attention_backward_group(const AttentionParams& p, int64_t b, int64_t g, float* work) noexcept {
  HWY_DYNAMIC_DISPATCH(backward_group)(p, b, g, work);
}

}  // namespace coca::cpu
#endif  // HWY_ONCE

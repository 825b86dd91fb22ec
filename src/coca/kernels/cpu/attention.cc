// Tiles of 64 queries by 64 keys. Tiles that the mask cuts are walked in strips of 16 queries, each with only the keys
// visible to it; tiles without a visible pair are skipped. All operands of a product are packed (contiguous,
// zero-padded to whole vectors), so one block product serves forward and backward:
//   S = Q K^T, O += P V, dV += P^T dO, dP = dO V^T, dK += dS^T Q, dQ += dS K.
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

#include "coca/kernels/cpu/attention_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

// A packed key block: K^T [steps(E), kTile], then V [key_steps(kTile), padded(D)].
template <class Op>
int64_t packed_elements(HeadWidths w) {
  return steps<Op>(w.E) * kTile + key_steps<Op>(kTile) * padded(w.D);
}

template <class Op, class S>
void pack_block(const AttentionParams<S>& p, int64_t b, int64_t g, int64_t block, Op* packed) {
  const HeadWidths widths = widths_of(p);
  const int64_t key0 = block * kTile, rows = std::min(kTile, p.k.size(1) - key0);
  Op* k_t = packed + block * packed_elements<Op>(widths);
  pack_transposed(p.k.ptr(b, key0, g), p.k.stride(1), rows, widths.E, k_t);
  pack_keys(p.v.ptr(b, key0, g), p.v.stride(1), rows, widths.D, k_t + steps<Op>(widths.E) * kTile);
}

HWY_INLINE void scale_row(float* row, float factor, int64_t Dp) {
  for_lanes(Dp, [&](auto d, int64_t i)
                    HWY_ATTR { hn::StoreU(hn::Mul(hn::LoadU(d, row + i), hn::Set(d, factor)), d, row + i); });
}

// One query block's sums while its keys are walked.
template <class Op>
struct BlockWork {
  float* o;           // [kTile, Dp]
  float* s;           // [kTile, kTile]
  Op* q;              // [kTile, width]
  Op* probabilities;  // [kTile, ld]; floats replace their scores
  RowState state;
};

// The keys of p, added to the earlier keys of the rows.
template <class Op, class S>
void walk_keys(const AttentionParams<S>& p, int64_t b, int64_t h, int64_t n0, int64_t rows, const Op* packed,
               BlockWork<Op>& w) {
  const int64_t E = p.q.size(3), D = p.v.size(3);
  const int64_t Dp = padded(D), width = row_steps<Op>(E), ld = key_steps<Op>(kTile);
  const float factor = factor_of(p);
  float decay[kTile];
  const int64_t key_begin = seen_keys(p, b, n0).begin / kTile * kTile, key_end = seen_keys(p, b, n0 + rows - 1).end;
  pack_rows(p.q.ptr(b, n0, h), p.q.stride(1), rows, E, w.q);
  for (int64_t key0 = key_begin; key0 < key_end; key0 += kTile) {
    const Op* k_t = packed + key0 / kTile * packed_elements<Op>({E, D});
    const Op* v = k_t + steps<Op>(E) * kTile;
    load_decay(p, b, h, key0, decay);
    for_strips(p, b, n0, rows, key0, [&](int64_t r0, int64_t strip, const Seen& columns) HWY_ATTR {
      const int64_t c0 = columns.begin, k0 = key_steps<Op>(c0);
      block_gemm<false, Op>({strip, padded(columns.end) - c0, steps<Op>(E), w.q + r0 * width, width, 1, k_t + c0, kTile,
                             w.s + r0 * kTile + c0, kTile});
      for (int64_t r = r0; r < r0 + strip; ++r) {
        finish_scores(p, b, h, n0 + r, key0, decay, columns, w.s + r * kTile);
        const float fading = softmax_row(factor, c0, padded(columns.end), w.s + r * kTile, w.probabilities + r * ld,
                                         w.state.max[r], w.state.sum[r]);
        if (fading != 1.0f) scale_row(w.o + r * Dp, fading, Dp);
      }
      block_gemm<true, Op>({strip, Dp, key_steps<Op>(columns.end - c0), w.probabilities + r0 * ld + k0, ld, 1,
                            v + k0 * Dp, Dp, w.o + r0 * Dp, Dp});
    });
  }
}

template <class Op, class S>
void forward_block(const AttentionParams<S>& p, int64_t b, int64_t h, int64_t query_block, const PackedKeys& packed,
                   float* work) {
  const int64_t E = p.q.size(3), D = p.v.size(3);
  const int64_t N = p.q.size(1), Dp = padded(D);
  const int64_t n0 = query_block * kTile, rows = std::min(kTile, N - n0);
  BlockWork<Op> w;
  w.o = work;
  w.s = w.o + kTile * Dp;
  w.q = reinterpret_cast<Op*>(w.s + kTile * kTile);
  w.probabilities = reinterpret_cast<Op*>(w.s);
  if constexpr (kPairs<Op>) w.probabilities = w.q + kTile * row_steps<Op>(E);
  std::memset(w.o, 0, static_cast<size_t>(rows * Dp) * sizeof(float));
  std::fill_n(w.state.max, kTile, kNegInf);
  std::fill_n(w.state.sum, kTile, 0.0f);
  // What earlier parts of the keys gave is one key of score lse and value o.
  for (int64_t r = 0; r < rows && !p.o_sum.empty(); ++r) {
    const float lse = *p.lse.ptr(b, h, n0 + r);
    if (lse == kNegInf) continue;
    w.state.max[r] = lse;
    w.state.sum[r] = 1.0f;
    std::copy_n(p.o_sum.ptr(b, n0 + r, h), D, w.o + r * Dp);
  }
  walk_keys(p, b, h, n0, rows, static_cast<const Op*>(packed.keys), w);
  if (p.far) walk_keys(*p.far, b, h, n0, rows, static_cast<const Op*>(packed.far), w);
  for (int64_t r = 0; r < rows; ++r) {
    const float sum = w.state.sum[r], inverse = sum > 0.0f || std::isnan(sum) ? 1.0f / sum : 0.0f;
    if (p.o_sum.empty())
      store_row(w.o + r * Dp, inverse, D, p.o.ptr(b, n0 + r, h));
    else
      store_row(w.o + r * Dp, inverse, D, p.o_sum.ptr(b, n0 + r, h));
    if (!p.lse.empty()) *p.lse.ptr(b, h, n0 + r) = sum == 0.0f ? kNegInf : w.state.max[r] + std::log(sum);
  }
}

template <class S>
IndexRange row_keys(const AttentionParams<S>& p, int64_t b, int64_t n) {
  const IndexRange seen = seen_keys(p, b, n);
  return {std::max<int64_t>(0, std::min(seen.begin, seen.end)), std::max<int64_t>(0, seen.end)};
}

// Scores of one query with its visible keys; returns their number.
template <class S>
int64_t row_scores(const AttentionParams<S>& p, int64_t b, int64_t h, int64_t n, float* scores) {
  const auto [begin, end] = row_keys(p, b, n);
  const int64_t E = p.q.size(3), g = h / (p.q.size(2) / p.k.size(2)), m = p.query_start + n;
  for (int64_t s = begin; s < end; ++s) {
    float score = dot(p.q.ptr(b, n, h), p.k.ptr(b, s, g), E) * p.scale;
    if (!p.decay.empty()) score += p.query_decay(b, h, n) - p.decay(b, h, s);
    if (p.slopes) score -= p.slopes[h] * static_cast<float>(biased_distance(p, m, s));
    scores[s - begin] = score;
  }
  return end - begin;
}

template <class S>
void add_row_values(const AttentionParams<S>& p, int64_t b, int64_t h, int64_t n, const float* probabilities,
                    float* o) {
  const auto [begin, end] = row_keys(p, b, n);
  const int64_t D = p.v.size(3), g = h / (p.q.size(2) / p.k.size(2));
  for (int64_t s = begin; s < end; ++s) {
    const S* v = p.v.ptr(b, s, g);
    const float probability = probabilities[s - begin];
    for_lanes(D, [&](auto d, int64_t i) HWY_ATTR {
      hn::StoreU(hn::MulAdd(hn::Set(d, probability), load_f32(d, v + i), hn::LoadU(d, o + i)), d, o + i);
    });
  }
}

template <class S>
void forward_row(const AttentionParams<S>& p, int64_t b, int64_t h, int64_t n, float* work) {
  const int64_t D = p.v.size(3);
  float* scores = work;
  float* o = work + p.k.size(1) + (p.far ? p.far->k.size(1) : 0);
  const int64_t near = row_scores(p, b, h, n, scores),
                count = near + (p.far ? row_scores(*p.far, b, h, n, scores + near) : 0);
  float* before = sum_at(p.o_sum, b, n, h);  // and lse: of earlier parts of the keys
  if (before && count == 0) return;
  const float before_lse = before ? *p.lse.ptr(b, h, n) : kNegInf;
  const float largest = std::max(count > 0 ? *std::max_element(scores, scores + count) : kNegInf, before_lse);
  float sum = 0;
  if (count > 0)
    sum = sum_of(count, [&](auto d, int64_t i) HWY_ATTR {
      const auto e = exp_of_score(d, hn::Sub(hn::LoadU(d, scores + i), hn::Set(d, largest)));
      hn::StoreU(e, d, scores + i);
      return e;
    });
  std::memset(o, 0, static_cast<size_t>(D) * sizeof(float));
  if (before_lse != kNegInf) {
    const float share = std::exp(before_lse - largest);
    sum += share;
    for (int64_t i = 0; i < D; ++i) o[i] = share * before[i];
  }
  add_row_values(p, b, h, n, scores, o);
  if (p.far) add_row_values(*p.far, b, h, n, scores + near, o);
  const float inverse = count > 0 ? 1.0f / sum : 0.0f;
  if (before)
    store_row(o, inverse, D, before);
  else
    store_row(o, inverse, D, p.o.ptr(b, n, h));
  if (!p.lse.empty()) *p.lse.ptr(b, h, n) = count > 0 ? largest + std::log(sum) : kNegInf;
}

// What HWY_EXPORT needs: plain functions. T names the tensors' type, Op the operands'.
// NOLINTBEGIN(bugprone-macro-parentheses): types are not put in them
#define COCA_ATTENTION_ENTRIES(NAME, T, Op)                                                                \
  void pack_block_##NAME(const AttentionParams<T>& p, int64_t b, int64_t g, int64_t block, void* packed) { \
    pack_block(p, b, g, block, static_cast<Op*>(packed));                                                  \
  }                                                                                                        \
  void forward_block_##NAME(const AttentionParams<T>& p, int64_t b, int64_t h, int64_t query_block,        \
                            const PackedKeys& packed, void* work) {                                        \
    forward_block<Op>(p, b, h, query_block, packed, static_cast<float*>(work));                            \
  }
// NOLINTEND(bugprone-macro-parentheses)
COCA_ATTENTION_ENTRIES(f32, float, float)
COCA_ATTENTION_ENTRIES(bf16, BF16, float)
#if HWY_TARGET <= HWY_AVX3
COCA_ATTENTION_ENTRIES(bf16_dot, BF16, Bf16Pair)
#else  // has_bf16_dot() is false at these targets
COCA_ATTENTION_ENTRIES(bf16_dot, BF16, float)
#endif
void forward_row_f32(const AttentionParams<float>& p, int64_t b, int64_t h, int64_t n, float* work) {
  forward_row(p, b, h, n, work);
}
void forward_row_bf16(const AttentionParams<BF16>& p, int64_t b, int64_t h, int64_t n, float* work) {
  forward_row(p, b, h, n, work);
}
bool dot_target() { return HWY_TARGET <= HWY_AVX3; }

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(pack_block_f32);
HWY_EXPORT(pack_block_bf16);
HWY_EXPORT(pack_block_bf16_dot);
HWY_EXPORT(forward_block_f32);
HWY_EXPORT(forward_block_bf16);
HWY_EXPORT(forward_block_bf16_dot);
HWY_EXPORT(forward_row_f32);
HWY_EXPORT(forward_row_bf16);
HWY_EXPORT(dot_target);

bool has_bf16_dot() noexcept {
#if HWY_ARCH_X86
  static const bool cpu = __builtin_cpu_supports("avx512bf16");
  return cpu && HWY_DYNAMIC_DISPATCH(dot_target)();
#else
  return false;
#endif
}

namespace {
// Elements are 4 bytes in either form. Upper bounds that hold for both.
constexpr size_t kElement = 4;
int64_t row_elements(TileMath math, int64_t width) { return math == TileMath::kF32 ? padded(width) : (width + 1) / 2; }
int64_t half(TileMath math, int64_t n) { return math == TileMath::kF32 ? n : (n + 1) / 2; }
}  // namespace

size_t attention_packed_bytes(TileMath math, HeadWidths w) noexcept {
  return static_cast<size_t>(half(math, w.E) * kAttentionBlock + half(math, kAttentionBlock) * padded(w.D)) * kElement;
}
size_t attention_forward_bytes(HeadWidths w) noexcept {
  return static_cast<size_t>(kAttentionBlock * (padded(w.E) + padded(w.D) + 2 * kAttentionBlock)) * kElement;
}
size_t attention_backward_bytes(TileMath math, int64_t N, int64_t blocks, HeadWidths w) noexcept {
  const int64_t Ep = padded(w.E), Dp = padded(w.D), T = kAttentionBlock, Np = attention_blocks(N) * T;
  const int64_t keys = blocks * (half(math, T) * Ep + (half(math, w.E) + half(math, w.D)) * T + T * (Ep + Dp));
  const int64_t queries = Np * (row_elements(math, w.E) + row_elements(math, w.D)) +
                          (math == TileMath::kF32 ? 0 : half(math, Np) * (Ep + Dp)) + Np * Ep + Np;
  return static_cast<size_t>(keys + queries + 4 * T * T) * kElement;
}
size_t attention_partial_dq_floats(int64_t N, int64_t group, int64_t E) noexcept {
  return static_cast<size_t>(group * attention_blocks(N) * kAttentionBlock * padded(E));
}

template <>
void AttentionKernels<float>::pack_block(TileMath, const AttentionParams<float>& p, int64_t b, int64_t g, int64_t block,
                                         void* packed) noexcept {
  HWY_DYNAMIC_DISPATCH(pack_block_f32)(p, b, g, block, packed);
}
template <>
void AttentionKernels<BF16>::pack_block(TileMath math, const AttentionParams<BF16>& p, int64_t b, int64_t g,
                                        int64_t block, void* packed) noexcept {
  if (math == TileMath::kBf16Dot)
    HWY_DYNAMIC_DISPATCH(pack_block_bf16_dot)(p, b, g, block, packed);
  else
    HWY_DYNAMIC_DISPATCH(pack_block_bf16)(p, b, g, block, packed);
}
template <>
void AttentionKernels<float>::forward_block(TileMath, const AttentionParams<float>& p, int64_t b, int64_t h,
                                            int64_t query_block, const PackedKeys& packed, void* work) noexcept {
  HWY_DYNAMIC_DISPATCH(forward_block_f32)(p, b, h, query_block, packed, work);
}
template <>
void AttentionKernels<BF16>::forward_block(TileMath math, const AttentionParams<BF16>& p, int64_t b, int64_t h,
                                           int64_t query_block, const PackedKeys& packed, void* work) noexcept {
  if (math == TileMath::kBf16Dot)
    HWY_DYNAMIC_DISPATCH(forward_block_bf16_dot)(p, b, h, query_block, packed, work);
  else
    HWY_DYNAMIC_DISPATCH(forward_block_bf16)(p, b, h, query_block, packed, work);
}
template <>
void AttentionKernels<float>::forward_row(const AttentionParams<float>& p, int64_t b, int64_t h, int64_t n,
                                          float* work) noexcept {
  HWY_DYNAMIC_DISPATCH(forward_row_f32)(p, b, h, n, work);
}
template <>
void AttentionKernels<BF16>::forward_row(const AttentionParams<BF16>& p, int64_t b, int64_t h, int64_t n,
                                         float* work) noexcept {
  HWY_DYNAMIC_DISPATCH(forward_row_bf16)(p, b, h, n, work);
}
}  // namespace coca::cpu
#endif  // HWY_ONCE

// The backward pass of attention, tile by tile: the products are in attention.cc's first lines.
// Math: docs/math/attention.md.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "coca/kernels/cpu/attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/attention_backward.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "coca/kernels/cpu/attention_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

// Work space of one part of the backward pass, zero-padded. The parts' keys:
template <class Op>
struct KeyWork {
  Op *k, *k_t, *v_t;  // [key_steps, Ep] a block; blocks of [steps(E), kTile] and [steps(D), kTile]
  float *dk, *dv;     // [keys, Ep] [keys, Dp]
};
// ... and one query head, from the block of the first query that attends to them to that of the last:
template <class Op>
struct QueryWork {
  Op *q, *d_o;                           // [queries, row_steps(E)] [queries, row_steps(D)]
  Op *q_steps, *do_steps;                // [steps(queries), Ep] [steps(queries), Dp]; floats: the same as q and d_o
  float *dq, *delta;                     // [queries, Ep]; [queries] sum over d of o * do
  float *p, *ds;                         // [kTile, kTile]
  Op *p_queries, *ds_queries, *ds_keys;  // pairs only: over queries [kTile / 2, kTile], over keys [kTile, kTile / 2]
  float *row_sums = nullptr, *column_sums = nullptr;  // [N] [keys of all blocks] of ds; null: not wanted
};

template <class Op>
void carve(void* memory, int64_t N, int64_t blocks, HeadWidths widths, KeyWork<Op>& k, QueryWork<Op>& q) {
  const int64_t E = widths.E, D = widths.D;
  const int64_t Ep = padded(E), Dp = padded(D), keys = blocks * kTile, Np = attention_blocks(N) * kTile;
  auto* at = static_cast<std::byte*>(memory);
  const auto take = [&at]<class T>(T*& slot, int64_t count) {
    slot = reinterpret_cast<T*>(at);
    at += static_cast<size_t>(count) * sizeof(T);
  };
  take(k.k, blocks * key_steps<Op>(kTile) * Ep);
  take(k.k_t, blocks * steps<Op>(E) * kTile);
  take(k.v_t, blocks * steps<Op>(D) * kTile);
  take(k.dk, keys * Ep);
  take(k.dv, keys * Dp);
  take(q.q, Np * row_steps<Op>(E));
  take(q.d_o, Np * row_steps<Op>(D));
  q.q_steps = q.q;
  q.do_steps = q.d_o;
  if constexpr (kPairs<Op>) {
    take(q.q_steps, steps<Op>(Np) * Ep);
    take(q.do_steps, steps<Op>(Np) * Dp);
  }
  take(q.dq, Np * Ep);
  take(q.delta, Np);
  take(q.p, kTile * kTile);
  take(q.ds, kTile * kTile);
  if constexpr (kPairs<Op>) {
    take(q.p_queries, kTile * kTile / 2);
    take(q.ds_queries, kTile * kTile / 2);
    take(q.ds_keys, kTile * kTile / 2);
  } else {
    q.p_queries = q.p;
    q.ds_queries = q.ds_keys = q.ds;
  }
}

// p = exp(s - lse); ds = p (dp - delta), for one row of a strip; masked columns become zero in both.
HWY_INLINE void gradient_row(float factor, const Seen& columns, float lse, float delta, float* p, float* ds) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), width = padded(columns.end);
  // A row without any visible key has lse = -inf; its scores are -inf, and -inf - 0 makes them zero.
  const auto base = hn::Set(d, lse == kNegInf ? 0.0f : lse), minus = hn::Set(d, delta), f = hn::Set(d, factor);
  for (int64_t c = columns.begin; c < width; c += lanes) {
    const auto e = exp_of_score(d, hn::MulSub(hn::LoadU(d, p + c), f, base));
    hn::StoreU(e, d, p + c);
    hn::StoreU(hn::Mul(e, hn::Sub(hn::LoadU(d, ds + c), minus)), d, ds + c);
  }
}

// Rounds a strip's p and ds into the three forms of pairs. An odd last row is paired with zeros.
template <class Op>
HWY_INLINE void pair_strip(const QueryWork<Op>& w, int64_t r0, int64_t strip, const Seen& columns) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), width = padded(columns.end);
  for (int64_t r = r0; r < r0 + strip; r += 2) {
    const bool both = r + 1 < r0 + strip;
    for (int64_t c = columns.begin; c < width; c += lanes)
      for (const auto& [from, to] : {std::pair{w.p, w.p_queries}, std::pair{w.ds, w.ds_queries}}) {
        const auto low = hn::LoadU(d, from + r * kTile + c);
        const auto high = both ? hn::LoadU(d, from + (r + 1) * kTile + c) : hn::Zero(d);
        hn::StoreU(round_to_pairs(low, high), du, to + r / 2 * kTile + c);
      }
  }
  for (int64_t r = r0; r < r0 + strip; ++r)
    for (int64_t c = columns.begin; c < width; c += 32) {
      const float* row = w.ds + r * kTile + c;
      const auto high = c + 16 < width ? hn::LoadU(d, row + 16) : hn::Zero(d);
      hn::StoreU(round_to_pairs(hn::LoadU(d, row), high), du, w.ds_keys + r * (kTile / 2) + c / 2);
    }
}

// Adds a strip's ds to the sums of its rows and columns.
template <class Op>
HWY_INLINE void sum_strip(const QueryWork<Op>& w, int64_t r0, int64_t strip, const Seen& columns, float* row_sums,
                          float* column_sums) {
  const int64_t c0 = columns.begin, wide = padded(columns.end) - c0;
  for (int64_t r = r0; r < r0 + strip; ++r) {
    const float* ds = w.ds + r * kTile + c0;
    row_sums[r] += sum_of(wide, [&](auto d, int64_t i) HWY_ATTR { return hn::LoadU(d, ds + i); });
    for_lanes(wide, [&](auto d, int64_t i) HWY_ATTR {
      float* sum = column_sums + c0 + i;
      hn::StoreU(hn::Add(hn::LoadU(d, sum), hn::LoadU(d, ds + i)), d, sum);
    });
  }
}

// The gradients that one key block and one query block give each other. key0 and n0 count from the tensors' beginning,
// kb and q0 from that of the work space.
template <class Op, class S>
void backward_tile(const AttentionParams<S>& a, int64_t b, int64_t h, const KeyWork<Op>& k, const QueryWork<Op>& w,
                   int64_t key0, int64_t kb, int64_t n0, int64_t q0) {
  const int64_t E = a.q.size(3), D = a.v.size(3);
  const int64_t Ep = padded(E), Dp = padded(D), width = row_steps<Op>(E), do_width = row_steps<Op>(D);
  const int64_t rows = std::min(kTile, a.q.size(1) - n0), ld = key_steps<Op>(kTile);
  const float factor = factor_of(a);
  float decay[kTile];
  load_decay(a, b, h, key0, decay);
  const float* lse = a.lse.ptr(b, h);
  const int64_t lse_step = a.lse.stride(2);
  const Op* k_t = k.k_t + kb * steps<Op>(E) * kTile;
  const Op* v_t = k.v_t + kb * steps<Op>(D) * kTile;
  const Op* k_rows = k.k + kb * key_steps<Op>(kTile) * Ep;
  for_strips(a, b, n0, rows, key0, [&](int64_t r0, int64_t strip, const Seen& columns) HWY_ATTR {
    const int64_t c0 = columns.begin, count = columns.end - c0, wide = padded(columns.end) - c0, at = q0 + r0;
    block_gemm<false, Op>(
        {strip, wide, steps<Op>(E), w.q + at * width, width, 1, k_t + c0, kTile, w.p + r0 * kTile + c0, kTile});
    block_gemm<false, Op>({strip, wide, steps<Op>(D), w.d_o + at * do_width, do_width, 1, v_t + c0, kTile,
                           w.ds + r0 * kTile + c0, kTile});
    for (int64_t r = r0; r < r0 + strip; ++r) {
      finish_scores(a, b, h, n0 + r, key0, decay, columns, w.p + r * kTile);
      gradient_row(factor, columns, lse[(n0 + r) * lse_step], w.delta[q0 + r], w.p + r * kTile, w.ds + r * kTile);
    }
    if (w.row_sums) sum_strip(w, r0, strip, columns, w.row_sums + n0, w.column_sums + key0);
    if constexpr (kPairs<Op>) pair_strip(w, r0, strip, columns);
    const int64_t over = steps<Op>(strip), from = steps<Op>(r0), rows_at = steps<Op>(at), key_at = kb * kTile + c0;
    block_gemm<true, Op>({count, Dp, over, w.p_queries + from * kTile + c0, 1, kTile, w.do_steps + rows_at * Dp, Dp,
                          k.dv + key_at * Dp, Dp});
    block_gemm<true, Op>({count, Ep, over, w.ds_queries + from * kTile + c0, 1, kTile, w.q_steps + rows_at * Ep, Ep,
                          k.dk + key_at * Ep, Ep});
    block_gemm<true, Op>({strip, Ep, key_steps<Op>(count), w.ds_keys + r0 * ld + key_steps<Op>(c0), ld, 1,
                          k_rows + key_steps<Op>(c0) * Ep, Ep, w.dq + at * Ep, Ep});
  });
}

// All keys of the part against these queries (whole blocks) of one head.
template <class Op, class S>
void backward_head(const AttentionParams<S>& a, const AttentionPart& part, int64_t h, IndexRange queries,
                   const KeyWork<Op>& k, const QueryWork<Op>& w) {
  const int64_t E = a.q.size(3), D = a.v.size(3);
  const int64_t begin = queries.begin, rows = queries.end - begin;
  if (rows > 0) {
    pack_rows(a.q.ptr(part.b, begin, h), a.q.stride(1), rows, E, w.q);
    pack_rows(a.d_o.ptr(part.b, begin, h), a.d_o.stride(1), rows, D, w.d_o);
    if constexpr (kPairs<Op>) {
      pack_queries(a.q.ptr(part.b, begin, h), a.q.stride(1), rows, E, w.q_steps);
      pack_queries(a.d_o.ptr(part.b, begin, h), a.d_o.stride(1), rows, D, w.do_steps);
    }
    std::memset(w.dq, 0, static_cast<size_t>(rows * padded(E)) * sizeof(float));
  }
  for (int64_t n = begin; n < queries.end; ++n)
    w.delta[n - begin] = dot(a.out.ptr(part.b, n, h), a.d_o.ptr(part.b, n, h), D);
  for (int64_t block = part.block0; block < part.block1; ++block) {
    const int64_t key0 = block * kTile;
    const IndexRange seeing = seeing_queries(a, part.b, {key0, key0 + kTile});
    for (int64_t n0 = seeing.begin / kTile * kTile; n0 < seeing.end; n0 += kTile)
      backward_tile(a, part.b, h, k, w, key0, block - part.block0, n0, n0 - begin);
  }
}

template <class Op, class S>
void backward_part(const AttentionParams<S>& a, const AttentionPart& part, void* memory) {
  const int64_t E = a.q.size(3), D = a.v.size(3);
  const int64_t Ep = padded(E), Dp = padded(D);
  const int64_t N = a.q.size(1), S_ = a.k.size(1), group = a.q.size(2) / a.k.size(2);
  const int64_t key_begin = part.block0 * kTile, key_end = std::min(S_, part.block1 * kTile);
  const IndexRange seeing = seeing_queries(a, part.b, {key_begin, part.block1 * kTile});
  const IndexRange queries{seeing.begin / kTile * kTile, std::min(N, attention_blocks(seeing.end) * kTile)};
  KeyWork<Op> k;
  QueryWork<Op> w;
  carve(memory, N, part.block1 - part.block0, {E, D}, k, w);
  for (int64_t block = part.block0; block < part.block1; ++block) {
    const int64_t key0 = block * kTile, rows = std::min(kTile, S_ - key0), kb = block - part.block0;
    pack_keys(a.k.ptr(part.b, key0, part.g), a.k.stride(1), rows, E, k.k + kb * key_steps<Op>(kTile) * Ep);
    pack_transposed(a.k.ptr(part.b, key0, part.g), a.k.stride(1), rows, E, k.k_t + kb * steps<Op>(E) * kTile);
    pack_transposed(a.v.ptr(part.b, key0, part.g), a.v.stride(1), rows, D, k.v_t + kb * steps<Op>(D) * kTile);
  }
  const int64_t keys = (part.block1 - part.block0) * kTile;
  std::fill_n(k.dk, keys * Ep, 0.0f);
  std::fill_n(k.dv, keys * Dp, 0.0f);
  const int64_t partial = attention_blocks(N) * kTile * Ep;
  for (int64_t h = part.g * group; h < (part.g + 1) * group; ++h) {
    QueryWork<Op> head = w;
    if (part.row_sums) {
      const int64_t all_keys = attention_blocks(S_) * kTile;
      head.row_sums = part.row_sums + (h - part.g * group) * N;
      head.column_sums = part.column_sums + (h - part.g * group) * all_keys;
      std::fill_n(head.row_sums, N, 0.0f);
      std::fill_n(head.column_sums + key_begin, keys, 0.0f);
    }
    if (part.dq) {
      float* dq = part.dq + (h - part.g * group) * partial;
      std::fill(dq, dq + queries.begin * Ep, 0.0f);
      std::fill(dq + queries.end * Ep, dq + N * Ep, 0.0f);
      head.dq = dq + queries.begin * Ep;
    }
    backward_head(a, part, h, queries, k, head);
    for (int64_t n = 0; n < N && !part.dq; ++n) {
      float* sum = sum_at(a.dq_sum, part.b, n, h);
      if (n >= queries.begin && n < queries.end)
        store_or_add(head.dq + (n - queries.begin) * Ep, a.scale, E, sum ? nullptr : a.dq.ptr(part.b, n, h), sum);
      else if (!sum)
        std::fill_n(a.dq.ptr(part.b, n, h), E, S(0.0f));
    }
  }
  for (int64_t s = key_begin; s < key_end; ++s) {
    float* dv = k.dv + (s - key_begin) * Dp;
    if (!a.dk_sum.empty()) {
      store_or_add<S>(k.dk + (s - key_begin) * Ep, a.scale, E, nullptr, a.dk_sum.ptr(part.b, s, part.g));
      store_or_add<S>(dv, 1.0f, D, nullptr, a.dv_sum.ptr(part.b, s, part.g));
      continue;
    }
    store_row(k.dk + (s - key_begin) * Ep, a.scale, E, a.dk.ptr(part.b, s, part.g));
    S* stored = a.dv.ptr(part.b, s, part.g);
    if (a.store_dv == StoreDv::kAdd)
      for_lanes(D, [&](auto d, int64_t i)
                       HWY_ATTR { hn::StoreU(hn::Add(load_f32(d, stored + i), hn::LoadU(d, dv + i)), d, dv + i); });
    store_row(dv, 1.0f, D, stored);
  }
}

template <class S>
void sum_dq(const AttentionParams<S>& a, int64_t b, int64_t h, int64_t query_block, const float* partial, int64_t parts,
            int64_t part_stride) {
  const int64_t N = a.q.size(1), E = a.q.size(3), Ep = padded(E), n0 = query_block * kTile;
  for (int64_t n = n0; n < std::min(N, n0 + kTile); ++n) {
    float* all = sum_at(a.dq_sum, b, n, h);
    S* dq = all ? nullptr : a.dq.ptr(b, n, h);
    for_lanes(E, [&](auto d, int64_t i) HWY_ATTR {
      auto sum = hn::Zero(d);
      for (int64_t part = 0; part < parts; ++part)
        sum = hn::Add(sum, hn::LoadU(d, partial + part * part_stride + n * Ep + i));
      const auto scaled = hn::Mul(sum, hn::Set(d, a.scale));
      if (all)
        hn::StoreU(hn::Add(scaled, hn::LoadU(d, all + i)), d, all + i);
      else
        store_f32(scaled, d, dq + i);
    });
  }
}

// What HWY_EXPORT needs: plain functions. T names the tensors' type, Op the operands'.
// NOLINTBEGIN(bugprone-macro-parentheses): types are not put in them
#define COCA_ATTENTION_BACKWARD(NAME, T, Op)                                                      \
  void backward_part_##NAME(const AttentionParams<T>& p, const AttentionPart& part, void* work) { \
    backward_part<Op>(p, part, work);                                                             \
  }
// NOLINTEND(bugprone-macro-parentheses)
COCA_ATTENTION_BACKWARD(f32, float, float)
COCA_ATTENTION_BACKWARD(bf16, BF16, float)
#if HWY_TARGET <= HWY_AVX3
COCA_ATTENTION_BACKWARD(bf16_dot, BF16, Bf16Pair)
#else  // has_bf16_dot() is false at these targets
COCA_ATTENTION_BACKWARD(bf16_dot, BF16, float)
#endif
void sum_dq_f32(const AttentionParams<float>& p, int64_t b, int64_t h, int64_t block, const float* partial,
                int64_t parts, int64_t stride) {
  sum_dq(p, b, h, block, partial, parts, stride);
}
void sum_dq_bf16(const AttentionParams<BF16>& p, int64_t b, int64_t h, int64_t block, const float* partial,
                 int64_t parts, int64_t stride) {
  sum_dq(p, b, h, block, partial, parts, stride);
}

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(backward_part_f32);
HWY_EXPORT(backward_part_bf16);
HWY_EXPORT(backward_part_bf16_dot);
HWY_EXPORT(sum_dq_f32);
HWY_EXPORT(sum_dq_bf16);

template <>
void AttentionKernels<float>::backward_part(TileMath, const AttentionParams<float>& p, const AttentionPart& part,
                                            void* work) noexcept {
  HWY_DYNAMIC_DISPATCH(backward_part_f32)(p, part, work);
}
template <>
void AttentionKernels<BF16>::backward_part(TileMath math, const AttentionParams<BF16>& p, const AttentionPart& part,
                                           void* work) noexcept {
  if (math == TileMath::kBf16Dot)
    HWY_DYNAMIC_DISPATCH(backward_part_bf16_dot)(p, part, work);
  else
    HWY_DYNAMIC_DISPATCH(backward_part_bf16)(p, part, work);
}
template <>
void AttentionKernels<float>::sum_dq(const AttentionParams<float>& p, int64_t b, int64_t h, int64_t block,
                                     const float* partial, int64_t parts, int64_t part_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(sum_dq_f32)(p, b, h, block, partial, parts, part_stride);
}
template <>
void AttentionKernels<BF16>::sum_dq(const AttentionParams<BF16>& p, int64_t b, int64_t h, int64_t block,
                                    const float* partial, int64_t parts, int64_t part_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(sum_dq_bf16)(p, b, h, block, partial, parts, part_stride);
}

}  // namespace coca::cpu
#endif  // HWY_ONCE

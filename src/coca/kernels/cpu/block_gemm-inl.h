// coca/kernels/cpu/block_gemm-inl.h - products of small blocks that live in the L1/L2 cache, for attention.
// Per-target header: included inside foreach_target. C is computed in register tiles of MR rows by NV vectors.
// Operands are floats, or (AVX-512 with avx512_bf16) pairs of bf16 in 32 bits, of which one instruction multiplies
// and adds both: a step of the inner dimension is then two of its numbers.
// SPDX-License-Identifier: Apache-2.0
#if defined(COCA_KERNELS_CPU_BLOCK_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef COCA_KERNELS_CPU_BLOCK_GEMM_INL_H_
#undef COCA_KERNELS_CPU_BLOCK_GEMM_INL_H_
#else
#define COCA_KERNELS_CPU_BLOCK_GEMM_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "coca/kernels/cpu/bf16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// At -O2 gcc keeps small loops as loops, and the accumulators would live in memory instead of registers.
#undef COCA_UNROLL
#define COCA_UNROLL _Pragma("GCC unroll 16")

// C[m, n] (+)= sum over steps k of A[m * rs + k * cs] B[k * ldb + n]. n is a multiple of the vector length; B and C
// rows are readable and writable up to it. A may be walked by rows (cs = 1) or transposed (rs = 1).
template <class E>
struct BlockGemm {
  int64_t m, n, k;
  const E* a;
  int64_t rs, cs;
  const E* b;
  int64_t ldb;
  float* c;
  int64_t ldc;
};

template <class V>
HWY_INLINE V multiply_add(V x, V row, V acc) {
  return hn::MulAdd(x, row, acc);
}
#if HWY_TARGET <= HWY_AVX3
// Highway 1.0.3 has no such op; by assembler text the kernels need no compiler flag. Denormal operands and results
// count as zero, the result is rounded once per product of the pair (the instruction's definition).
template <class VP, class V>
HWY_INLINE V multiply_add(VP x, VP row, V acc) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(acc.raw) : "v"(x.raw), "v"(row.raw));
  return acc;
}
#endif

template <class E, int MR, int NV, bool kAdd>
HWY_INLINE void gemm_tile(const BlockGemm<E>& g, int64_t m, int64_t n) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<E, decltype(d)> de;
  using V = hn::Vec<decltype(d)>;
  using VE = hn::Vec<decltype(de)>;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  V acc[MR][NV];
  COCA_UNROLL
  for (int i = 0; i < MR; ++i) COCA_UNROLL
  for (int j = 0; j < NV; ++j) acc[i][j] = hn::Zero(d);
  const E* a = g.a + m * g.rs;
  const E* b = g.b + n;
  for (int64_t k = 0; k < g.k; ++k, a += g.cs, b += g.ldb) {
    VE row[NV];
    COCA_UNROLL
    for (int j = 0; j < NV; ++j) row[j] = hn::LoadU(de, b + j * lanes);
    COCA_UNROLL
    for (int i = 0; i < MR; ++i) {
      const VE x = hn::Set(de, a[i * g.rs]);
      COCA_UNROLL
      for (int j = 0; j < NV; ++j) acc[i][j] = multiply_add(x, row[j], acc[i][j]);
    }
  }
  COCA_UNROLL
  for (int i = 0; i < MR; ++i) {
    float* c = g.c + (m + i) * g.ldc + n;
    COCA_UNROLL
    for (int j = 0; j < NV; ++j) {
      const V sum = kAdd ? hn::Add(hn::LoadU(d, c + j * lanes), acc[i][j]) : acc[i][j];
      hn::StoreU(sum, d, c + j * lanes);
    }
  }
}

// Rows per tile so that MR * NV accumulators, NV loads and a broadcast fit the register file.
template <int NV>
constexpr int tile_rows() {
#if HWY_TARGET <= HWY_AVX3  // 32 registers
  return NV == 4 ? 6 : NV == 3 ? 8 : 12;
#else
  return NV == 2 ? 6 : NV == 1 ? 8 : 3;
#endif
}
#if HWY_TARGET <= HWY_AVX3
constexpr int kMaxTileVectors = 4;
#else
constexpr int kMaxTileVectors = 2;
#endif

template <class E, int NV, bool kAdd>
HWY_INLINE void gemm_strip(const BlockGemm<E>& g, int64_t n) {
  constexpr int kRows = tile_rows<NV>();
  int64_t m = 0;
  for (; m + kRows <= g.m; m += kRows) gemm_tile<E, kRows, NV, kAdd>(g, m, n);
  for (; m + 4 <= g.m; m += 4) gemm_tile<E, 4, NV, kAdd>(g, m, n);
  for (; m < g.m; ++m) gemm_tile<E, 1, NV, kAdd>(g, m, n);
}

template <bool kAdd, class E>
HWY_NOINLINE void block_gemm(const BlockGemm<E>& g) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t n = 0, vectors = g.n / lanes;
  for (; vectors >= kMaxTileVectors; vectors -= kMaxTileVectors, n += kMaxTileVectors * lanes)
    gemm_strip<E, kMaxTileVectors, kAdd>(g, n);
  if (vectors == 3) gemm_strip<E, (kMaxTileVectors > 3 ? 3 : 1), kAdd>(g, n);
  if (vectors == 2) gemm_strip<E, (kMaxTileVectors > 2 ? 2 : 1), kAdd>(g, n);
  if (vectors == 1) gemm_strip<E, 1, kAdd>(g, n);
}

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

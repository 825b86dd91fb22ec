// A page of 256 tokens at a time: scores (lanes are tokens), online softmax, then values (lanes are dims). Rows go
// in blocks of 8, 4, 2 and 1, so that a key is widened and rotated once per block.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/decode_attention.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/decode_attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "coca/kernels/cpu/bf16-inl.h"
#include "coca/kernels/cpu/math-inl.h"
#include "coca/kernels/cpu/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// At -O2 gcc keeps small loops as loops, and the accumulators would live in memory instead of registers.
#undef COCA_UNROLL
#define COCA_UNROLL _Pragma("GCC unroll 16")

// int8 as floats, without the token's scale; f32 and bf16 are in bf16-inl.h.
template <class D, class Integer>
HWY_INLINE hn::Vec<D> load_int8(D d, const Integer* p) {
  const hn::RebindToSigned<D> di;
  return hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(hn::Rebind<Integer, D>(), p)));
}
template <class D>
HWY_INLINE hn::Vec<D> load_f32(D d, const int8_t* p) {
  return load_int8(d, p);
}
template <class D>
HWY_INLINE hn::Vec<D> load_f32(D d, const uint8_t* p) {
  return load_int8(d, p);
}
template <class T>
constexpr bool kScaled = sizeof(T) == 1;

// Registers: kRows * kVecs sums, 2 kVecs turned keys, and a broadcast.
template <int kRows>
constexpr int score_vectors() {
#if HWY_TARGET <= HWY_AVX3  // 32 registers
  return kRows <= 4 ? 4 : 2;
#else
  return kRows <= 1 ? 4 : kRows <= 4 ? 2 : 1;
#endif
}
template <int kRows>
constexpr int value_vectors() {
#if HWY_TARGET <= HWY_AVX3
  return kRows <= 4 ? 4 : 2;
#else
  return kRows <= 2 ? 4 : kRows <= 4 ? 2 : 1;
#endif
}

// Memory this many bytes ahead of its use is fetched into L2: a run is too short for the CPU to find the pattern by
// itself in time, and fetching into L1 would occupy the buffers that loads need. Many rows compute longer than memory
// takes.
constexpr int64_t kAhead = 8192;
template <int kRows>
constexpr bool kPrefetch = kRows < 8;
HWY_INLINE void prefetch(const void* p, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const std::byte*>(p) + i, 0, 2);
}

struct ScoreTile {
  const std::byte* keys;       // [W, 64] in the order of kv_lane
  const float* scales;         // [64] by tokens
  const float *cos, *sin;      // [half, 64] in the order of kv_lane
  const float *turned, *rest;  // u, w and p of row 0
  int64_t turned_step, rest_step;
  float* scores;  // [kRows, kKvPage] written, by tokens
};

// A strip has half of its vectors from lane c on and the others 32 lanes after them, or a single one from lane c on.
constexpr int64_t kHalfTile = kKvTile / 2;
template <int kVecs>
HWY_INLINE int64_t lane_of(int v, int64_t c, int64_t lanes) {
  if constexpr (kVecs == 1) return c;
  return v < kVecs / 2 ? c + v * lanes : kHalfTile + c + (v - kVecs / 2) * lanes;
}

// A strip's part of row `row` of the keys, as floats; fetches the same part of what comes kAhead later.
template <class Stored, int kRows, int kVecs, class D, class V>
HWY_INLINE void load_keys(D d, const std::byte* keys, int64_t row, int64_t c, V (&k)[kVecs]) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto* at = reinterpret_cast<const Stored*>(keys) + row * kKvTile;
  if constexpr (kPrefetch<kRows>) {
    const int64_t part = c * (kVecs == 1 ? 1 : 2);
    prefetch(at + part + kAhead / static_cast<int64_t>(sizeof(Stored)),
             kVecs * static_cast<int64_t>(hn::MaxLanes(d) * sizeof(Stored)));
  }
  if constexpr (std::is_same_v<Stored, BF16>) {  // 32 bits hold a lane of either half: a float is its bf16 and zeros
    const hn::RebindToUnsigned<D> du;
    const auto* pairs = reinterpret_cast<const uint32_t*>(at);
    const auto low = [&](auto x) HWY_ATTR { return hn::BitCast(d, hn::ShiftLeft<16>(x)); };
    const auto high = [&](auto x) HWY_ATTR { return hn::BitCast(d, hn::And(x, hn::Set(du, 0xffff0000u))); };
    if constexpr (kVecs == 1) {
      const auto x = hn::LoadU(du, pairs + c % kHalfTile);
      k[0] = c < kHalfTile ? low(x) : high(x);
    } else {
      COCA_UNROLL
      for (int v = 0; v < kVecs / 2; ++v) {
        const auto x = hn::LoadU(du, pairs + c + v * lanes);
        k[v] = low(x);
        k[v + kVecs / 2] = high(x);
      }
    }
  } else {
    COCA_UNROLL
    for (int v = 0; v < kVecs; ++v) k[v] = load_f32(d, at + lane_of<kVecs>(v, c, lanes));
  }
}

// Adds the numbers that count unrotated.
template <class Stored, class V, int kRows, int kVecs>
HWY_INLINE void add_plain(const DecodeParams& p, const ScoreTile& t, int64_t c, V (&sum)[kRows][kVecs]) {
  const hn::ScalableTag<float> d;
  const int64_t W = p.cache.layout.W;
  for (int64_t i = p.plain; i < W; ++i) {
    V k[kVecs];
    load_keys<Stored, kRows>(d, t.keys, i, c, k);
    COCA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const V q = hn::Set(d, t.rest[r * t.rest_step + i - p.plain]);
      COCA_UNROLL
      for (int v = 0; v < kVecs; ++v) sum[r][v] = hn::MulAdd(k[v], q, sum[r][v]);
    }
  }
}

template <class Stored, class V, int kRows, int kVecs>
HWY_INLINE void store_scores(const ScoreTile& t, int64_t c, const V (&sum)[kRows][kVecs]) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  COCA_UNROLL
  for (int v = 0; v < kVecs; ++v) {
    const int64_t lane = lane_of<kVecs>(v, c, lanes);
    const bool back = lane < kHalfTile;  // the first half's tokens run backwards
    const int64_t token = back ? kHalfTile - lane - lanes : lane;
    COCA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      V x = back ? hn::Reverse(d, sum[r][v]) : sum[r][v];
      if constexpr (kScaled<Stored>) x = hn::Mul(x, hn::LoadU(d, t.scales + token));
      hn::StoreU(x, d, t.scores + r * kKvPage + token);
    }
  }
}

// Turning the query instead of the key, cheaper for a single row: q = cos u + sin w, and where the table is mirrored
// both halves share cos u.
template <class Stored, bool kMirrored, class V, int kVecs>
HWY_INLINE void add_folded_row(const DecodeParams& p, const ScoreTile& t, int64_t c, V (&sum)[1][kVecs]) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t j = 0; j < p.half; ++j) {
    const float *cos = t.cos + j * kKvTile, *sin = t.sin + j * kKvTile;
    const V u = hn::Set(d, t.turned[j]), w = hn::Set(d, t.turned[p.half + j]);
    V k[kVecs], q[kVecs];
    load_keys<Stored, 1>(d, t.keys, j, c, k);
    COCA_UNROLL
    for (int v = 0; v < kVecs; ++v) {
      if (kMirrored && v < kVecs / 2) continue;
      const int64_t lane = lane_of<kVecs>(v, c, lanes);
      const V cu = hn::Mul(hn::LoadU(d, cos + lane), u), sv = hn::LoadU(d, sin + lane);
      q[v] = hn::MulAdd(sv, w, cu);
      if constexpr (kMirrored) q[v - kVecs / 2] = hn::NegMulAdd(sv, w, cu);
    }
    COCA_UNROLL
    for (int v = 0; v < kVecs; ++v) sum[0][v] = hn::MulAdd(k[v], q[v], sum[0][v]);
  }
}

// The key is turned once for all rows.
template <class Stored, Keys kKeys, class V, int kRows, int kVecs>
HWY_INLINE void add_rows(const DecodeParams& p, const ScoreTile& t, int64_t c, V (&sum)[kRows][kVecs]) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), W = p.cache.layout.W;
  int64_t a = 0, b = p.half % W;
  for (int64_t j = 0; j < p.half; ++j) {
    const float* turned = t.turned + j;
    const float *cos = t.cos + j * kKvTile, *sin = t.sin + j * kKvTile;
    V x[kVecs], y[kVecs], ka[kVecs], kb[kVecs];
    load_keys<Stored, kRows>(d, t.keys, a, c, ka);
    if constexpr (kKeys == Keys::kPairs) load_keys<Stored, kRows>(d, t.keys, b, c, kb);
    COCA_UNROLL
    for (int v = 0; v < kVecs; ++v) {
      const int64_t lane = lane_of<kVecs>(v, c, lanes);
      const V cv = hn::LoadU(d, cos + lane), sv = hn::LoadU(d, sin + lane);
      if constexpr (kKeys == Keys::kFolded) {
        x[v] = hn::Mul(ka[v], cv);
        y[v] = hn::Mul(ka[v], sv);
      } else {
        x[v] = hn::NegMulAdd(kb[v], sv, hn::Mul(ka[v], cv));
        y[v] = hn::MulAdd(kb[v], cv, hn::Mul(ka[v], sv));
      }
    }
    COCA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const V u = hn::Set(d, turned[r * t.turned_step]), w = hn::Set(d, turned[r * t.turned_step + p.half]);
      COCA_UNROLL
      for (int v = 0; v < kVecs; ++v) sum[r][v] = hn::MulAdd(x[v], u, hn::MulAdd(y[v], w, sum[r][v]));
    }
    if (++a == W) a = 0;
    if (++b == W) b = 0;
  }
}

// Scores of kRows rows with kVecs vectors of tokens.
template <class Stored, Keys kKeys, int kRows, int kVecs>
HWY_INLINE void score_strip(const DecodeParams& p, const ScoreTile& t, int64_t c) {
  const hn::ScalableTag<float> d;
  hn::Vec<decltype(d)> sum[kRows][kVecs];
  COCA_UNROLL
  for (int r = 0; r < kRows; ++r) COCA_UNROLL
  for (int v = 0; v < kVecs; ++v) sum[r][v] = hn::Zero(d);
  if constexpr (kKeys == Keys::kFolded && kRows == 1) {
    if (p.mirrored)
      add_folded_row<Stored, true>(p, t, c, sum);
    else
      add_folded_row<Stored, false>(p, t, c, sum);
  } else {
    add_rows<Stored, kKeys>(p, t, c, sum);
  }
  add_plain<Stored>(p, t, c, sum);
  store_scores<Stored>(t, c, sum);
}

template <class Stored, Keys kKeys, int kRows>
HWY_NOINLINE void score_tile(const DecodeParams& p, const ScoreTile& t) {
  constexpr int kVecs = score_vectors<kRows>();
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(hn::ScalableTag<float>()));
  const int64_t end = kVecs == 1 ? kKvTile : kHalfTile, step = kVecs == 1 ? lanes : kVecs / 2 * lanes;
  for (int64_t c = 0; c < end; c += step) score_strip<Stored, kKeys, kRows, kVecs>(p, t, c);
}

struct ValuePage {
  const std::byte* values;  // [256, D]
  int64_t tokens, D, Dp;
  const float* p;        // [kRows, kKvPage] probabilities, times the values' scales with int8
  const float* factors;  // [kRows] by which o is rescaled first
  float* o;              // [kRows, Dp]
  int64_t left;          // bytes of values in the run; what is read after them begins at `next`
  const std::byte* next;
};

template <class Stored, int kRows, int kVecs>
HWY_INLINE void value_strip(const ValuePage& t, int64_t c) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto* values = reinterpret_cast<const Stored*>(t.values) + c;
  V sum[kRows][kVecs];
  COCA_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const V f = hn::Set(d, t.factors[r]);
    COCA_UNROLL
    for (int v = 0; v < kVecs; ++v) sum[r][v] = hn::Mul(f, hn::LoadU(d, t.o + r * t.Dp + c + v * lanes));
  }
  for (int64_t n = 0; n < t.tokens; ++n, values += t.D) {
    if constexpr (kPrefetch<kRows>) {
      const int64_t at = (n * t.D + c) * static_cast<int64_t>(sizeof(Stored)) + kAhead;
      prefetch(at < t.left ? t.values + at : t.next + (at - t.left),
               kVecs * static_cast<int64_t>(hn::MaxLanes(d) * sizeof(Stored)));
    }
    V x[kVecs];
    COCA_UNROLL
    for (int v = 0; v < kVecs; ++v) x[v] = load_f32(d, values + v * lanes);
    COCA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const V p = hn::Set(d, t.p[r * kKvPage + n]);
      COCA_UNROLL
      for (int v = 0; v < kVecs; ++v) sum[r][v] = hn::MulAdd(p, x[v], sum[r][v]);
    }
  }
  COCA_UNROLL
  for (int r = 0; r < kRows; ++r) COCA_UNROLL
  for (int v = 0; v < kVecs; ++v) hn::StoreU(sum[r][v], d, t.o + r * t.Dp + c + v * lanes);
}

// o = factor o + sum of p v. Vectors beyond D hold whatever follows the row; they are never read.
template <class Stored, int kRows>
HWY_NOINLINE void value_page(const ValuePage& t) {
  constexpr int kVecs = value_vectors<kRows>();
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(hn::ScalableTag<float>()));
  int64_t c = 0;
  for (; c + kVecs * lanes <= t.Dp; c += kVecs * lanes) value_strip<Stored, kRows, kVecs>(t, c);
  for (; c < t.D; c += lanes) value_strip<Stored, kRows, 1>(t, c);
}

// Turns u, w to the tile's middle: u' = c u + s w, w' = c w - s u, so that the tokens' angles count from there.
HWY_INLINE void turn_queries(const DecodeParams& p, int64_t tile, const float* queries, int64_t rows, float* turned) {
  const float* cos = p.start_cos + tile * p.half;
  const float* sin = p.start_sin + tile * p.half;
  for (int64_t r = 0; r < rows; ++r) {
    const float* u = queries + r * p.query_floats();
    const float* w = u + p.half;
    float* out = turned + r * 2 * p.half;
    for_lanes(p.half, [&](auto d, int64_t j) HWY_ATTR {
      const auto c = hn::LoadU(d, cos + j), s = hn::LoadU(d, sin + j);
      const auto uj = hn::LoadU(d, u + j), wj = hn::LoadU(d, w + j);
      hn::StoreU(hn::MulAdd(c, uj, hn::Mul(s, wj)), d, out + j);
      hn::StoreU(hn::NegMulAdd(s, uj, hn::Mul(c, wj)), d, out + p.half + j);
    });
  }
}

// The first token that may be visible to a row whose visible tokens end before `seen`.
HWY_INLINE int64_t first_seen(const DecodeParams& p, const DecodeTask& t, int64_t seen) {
  return std::max(p.first, p.window > 0 ? seen - 1 - (p.window - 1) * t.dilation : 0);
}

// Rows [r0, r0 + kRows) over the tokens [token, token + columns) of one page, those visible to the last of these rows.
template <class StoredKeys, class StoredValues, Keys kKeys, int kRows>
HWY_NOINLINE void page_rows(const DecodeParams& p, const DecodeTask& t, int64_t r0, int64_t token, int64_t columns,
                            float* work) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), D = p.cache.layout.D, Dp = decode_padded(D);
  const int64_t width = (columns + 15) / 16 * 16;
  const float* queries = t.queries + r0 * p.query_floats();
  float* scores = work;                          // [kRows, kKvPage]
  float* turned = work + kDecodeRows * kKvPage;  // [kRows, 2 half]
  const KvLayout& layout = p.cache.layout;
  const std::byte* run = p.cache.run(t.g, token);
  for (int64_t n = 0; n < columns; n += kKvTile) {
    const int64_t tile = (token + n) / kKvTile;
    if (p.start_cos) turn_queries(p, tile, queries, kRows, turned);
    score_tile<StoredKeys, kKeys, kRows>(p, {.keys = run + layout.key_tile_at(n / kKvTile),
                                             .scales = reinterpret_cast<const float*>(run + layout.key_scale_at(n)),
                                             .cos = p.cos + tile * p.tile_step,
                                             .sin = p.sin + tile * p.tile_step,
                                             .turned = p.start_cos ? turned : queries,
                                             .rest = queries + 2 * p.half,
                                             .turned_step = p.start_cos ? 2 * p.half : p.query_floats(),
                                             .rest_step = p.query_floats(),
                                             .scores = scores + n});
  }
  float factors[kRows];
  for (int r = 0; r < kRows; ++r) {
    float* row = scores + r * kKvPage;
    const int64_t seen = t.seen[r0 + r];
    if (t.decays) {
      const float *decay = t.decays[r0 + r], own = decay[seen - 1];
      for (int64_t c = 0; c < std::min(columns, seen - token); ++c) row[c] += own - decay[token + c];
    }
    if (t.slopes) {  // -slope (m - n)
      const int64_t m = t.places ? t.places[r0 + r] : seen - 1;
      const int64_t most = p.most_distance > 0 ? p.most_distance : std::numeric_limits<int64_t>::max();
      for (int64_t c = 0; c < columns; ++c)
        row[c] -= t.slopes[r0 + r] * static_cast<float>(std::min(m - token - c, most));
    }
    std::fill_n(row, std::clamp<int64_t>(first_seen(p, t, seen) - token, 0, columns), kNegInf);
    for (int64_t c = 0; c < columns && t.dilation > 1; ++c)
      if ((seen - 1 - token - c) % t.dilation != 0) row[c] = kNegInf;
    std::fill(row + std::clamp<int64_t>(seen - token, 0, columns), row + width, kNegInf);
    factors[r] = softmax_row(1.0f, 0, width, row, row, t.max[r0 + r], t.sum[r0 + r]);
    if constexpr (kScaled<StoredValues>) {
      const auto* scales = reinterpret_cast<const float*>(run + layout.value_scale_at(0));
      for (int64_t c = 0; c < width; c += lanes)
        hn::StoreU(hn::Mul(hn::LoadU(d, row + c), hn::LoadU(d, scales + c)), d, row + c);
    }
  }
  const std::byte* next = token + kKvPage < t.end ? p.cache.run(t.g, token + kKvPage) : run;
  // Scales are stored after the values but needed before them: the next run's keys follow this run's values, and its
  // scales come apart.
  if constexpr (kPrefetch<kRows> && kScaled<StoredValues>)
    prefetch(next + layout.key_scale_at(0), static_cast<int64_t>(layout.scale_bytes()) * kKvPage);
  value_page<StoredValues, kRows>({.values = run + layout.value_at(0),
                                   .tokens = columns,
                                   .D = D,
                                   .Dp = Dp,
                                   .p = scores,
                                   .factors = factors,
                                   .o = t.o + r0 * Dp,
                                   .left = static_cast<int64_t>(layout.value_at(kKvPage) - layout.value_at(0)),
                                   .next = next});
}

template <class StoredKeys, class StoredValues, Keys kKeys>
void range_of(const DecodeParams& p, const DecodeTask& t, float* work) {
  const int64_t Dp = decode_padded(p.cache.layout.D);
  std::fill_n(t.o, t.rows * Dp, 0.0f);
  std::fill_n(t.max, t.rows, kNegInf);
  std::fill_n(t.sum, t.rows, 0.0f);
  for (int64_t token = t.begin; token < t.end; token += kKvPage) {
    const int64_t page_end = std::min(t.end, token + kKvPage);
    for (int64_t r = 0; r < t.rows;) {
      const int64_t left = t.rows - r, block = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
      const int64_t columns = std::min(page_end, t.seen[r + block - 1]) - token;
      const bool behind = first_seen(p, t, t.seen[r]) >= page_end;  // the first row reaches farthest back
      if (columns > 0 && !behind) {
        if (block == 8) page_rows<StoredKeys, StoredValues, kKeys, 8>(p, t, r, token, columns, work);
        if (block == 4) page_rows<StoredKeys, StoredValues, kKeys, 4>(p, t, r, token, columns, work);
        if (block == 2) page_rows<StoredKeys, StoredValues, kKeys, 2>(p, t, r, token, columns, work);
        if (block == 1) page_rows<StoredKeys, StoredValues, kKeys, 1>(p, t, r, token, columns, work);
      }
      r += block;
    }
  }
}

template <class StoredKeys, class StoredValues>
void range_with(const DecodeParams& p, const DecodeTask& t, float* work) {
  if (p.keys == Keys::kFolded)
    range_of<StoredKeys, StoredValues, Keys::kFolded>(p, t, work);
  else
    range_of<StoredKeys, StoredValues, Keys::kPairs>(p, t, work);
}

void range(const DecodeParams& p, const DecodeTask& t, float* work) {
  switch (p.cache.layout.type) {
    case KvType::kF32: return range_with<float, float>(p, t, work);
    case KvType::kBF16: return range_with<BF16, BF16>(p, t, work);
    case KvType::kInt8:
      if (p.cache.layout.key_sign == KeySign::kNonNegative) return range_with<uint8_t, int8_t>(p, t, work);
      return range_with<int8_t, int8_t>(p, t, work);
  }
}

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(range);

size_t decode_work_floats(const DecodeParams& p) noexcept {
  return static_cast<size_t>(kDecodeRows * (kKvPage + 2 * p.half));
}
void decode_range(const DecodeParams& p, const DecodeTask& task, float* work) noexcept {
  HWY_DYNAMIC_DISPATCH(range)(p, task, work);
}

}  // namespace coca::cpu
#endif  // HWY_ONCE

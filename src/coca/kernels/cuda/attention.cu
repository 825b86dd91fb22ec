// Attention in fp32 arithmetic, for calls that cuDNN does not support (ALiBi, far keys, fp32), and as a reference for
// those it does. Math: docs/math/attention.md.
//
// A warp owns some rows (queries, or keys when computing their gradients). Tiles of 32 rows of the other side are in
// shared memory, one row per lane. Each lane first computes the score of its row. Then the warp adds up the 32 rows one
// after another, where each lane sums the dims d = lane, lane + 32, ... Sums therefore need no atomics and have the
// same order in every run.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/attention.h"

#include <cmath>

#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cuda/head_parts.h"
#include "coca/kernels/cuda/rows.h"
#include "coca/kernels/cuda/simt.h"

namespace coca::cuda {

namespace {

constexpr int kWarps = 8, kBlock = kWarps * kWarp;
constexpr int64_t kMostDims = 256;
constexpr float kInf = INFINITY;

// The keys that a query at position m sees, and the distances that ALiBi uses for them (args/attention.h).
struct Rules {
  int64_t keys = 0;
  bool causal = true;
  int64_t window = 0, hidden = 0;
  bool documents = false;
  int64_t offset = 0, query_step = 1, key_step = 1, most_distance = 0, most_position = 0;
};

struct Range {
  int64_t begin, end;
};
__device__ inline Range visible(const Rules& r, int64_t m, int64_t document) {
  int64_t end = r.causal ? m + 1 - r.hidden : r.keys;
  end = end < 0 ? 0 : end > r.keys ? r.keys : end;
  int64_t begin = r.window > 0 ? m + 1 - r.window : 0;
  if (r.documents && document > begin) begin = document;
  begin = begin < 0 ? 0 : begin > end ? end : begin;
  return {begin, end};
}

__device__ inline float alibi(const Rules& r, float slope, int64_t m, int64_t s) {
  int64_t place = r.offset + m * r.query_step;
  if (r.most_position > 0 && place > r.most_position) place = r.most_position;
  int64_t distance = place - s * r.key_step;
  if (distance < 0) distance = -distance;
  if (r.most_distance > 0 && distance > r.most_distance) distance = r.most_distance;
  return slope * static_cast<float>(distance);
}

// One group of queries and keys: those of the window (or all), or the far ones.
template <typename T>
struct Side {
  Rules rules;
  Heads<const T> q, k, v;
};

// Numbers [B, H, tokens]; none if null.
template <typename T>
struct PerToken {
  T* data = nullptr;
  int64_t stride_b = 0, stride_h = 0, stride_n = 0;

  PerToken() = default;
  template <typename Ref>
  explicit PerToken(const Ref& t)
      : data(const_cast<T*>(t.template as<float>())),
        stride_b(t.stride(0)),
        stride_h(t.stride(1)),
        stride_n(t.stride(2)) {}
  __device__ T& at(int64_t b, int64_t h, int64_t n) const { return data[b * stride_b + h * stride_h + n * stride_n]; }
};

template <typename T>
struct Call {
  int64_t N, H, G, E, D, query_start;  // E: width of q and k
  float scale;
  const float* slopes;       // [H] or null
  const int32_t* documents;  // [B, N] or null
  int64_t document_step;     // between batches
  PerToken<const float> decay, query_decay;
  PerToken<float> ddecay, dquery_decay;
  float *lse, *delta;           // [B, H, N]
  int64_t lse_b, lse_h, lse_n;  // strides of lse; delta is packed
  int sides;                    // 1, or 2 with far keys
  Side<T> side[2];
  Heads<const T> o, d_o;  // backward only

  __device__ int64_t document(int64_t b, int64_t n) const {
    return documents == nullptr ? 0 : documents[b * document_step + n];
  }
  // The score of query n and key s (both exist) of head h, from their dot product.
  __device__ float score(const Rules& r, int64_t b, int64_t h, int64_t n, int64_t s, float product) const {
    float score = scale * product;
    if (decay.data) score += query_decay.at(b, h, n) - decay.at(b, h, s);
    if (slopes) score -= alibi(r, slopes[h], query_start + n, s);
    return score;
  }
  __device__ float* lse_of(int64_t b, int64_t h, int64_t n) const { return lse + b * lse_b + h * lse_h + n * lse_n; }
  __device__ float* delta_of(int64_t b, int64_t h, int64_t n) const { return delta + (b * H + h) * N + n; }
};

// Copies rows first .. first + rows - 1 of a head as floats to [rows, step] in shared memory at `at`. Rows beyond
// `count` are zero.
template <typename T>
__device__ void load_rows(const Heads<const T>& from, int64_t b, int64_t head, int64_t first, int64_t count, int rows,
                          int64_t D, int64_t step, const DynamicShared& shared, int64_t at) {
  for (int64_t i = threadIdx.x; i < rows * D; i += kBlock) {
    const int64_t row = i / D, d = i % D;
    shared[at + row * step + d] = first + row < count ? load(from.row(b, first + row, head) + d) : 0.0f;
  }
}

__device__ inline float dot(const DynamicShared& shared, int64_t x, int64_t y, int64_t D) {
  float sum = 0.0f;
  for (int64_t d = 0; d < D; ++d) sum += shared[x + d] * shared[y + d];
  return sum;
}

// For each lane, sums[j] += factor of that lane times its row, of which this lane handles the dims lane + 32 j.
template <int kDims>
__device__ void add_rows(const DynamicShared& shared, int64_t rows, int64_t step, int64_t D, float factor, int lane,
                         float* sums) {
  for (int other = 0; other < kWarp; ++other) {
    const float f = __shfl_sync(kAllLanes, factor, other);
    for (int j = 0; j < kDims; ++j)
      if (lane + kWarp * j < D) sums[j] += f * shared[rows + other * step + lane + kWarp * j];
  }
}

// The keys that any of the queries first .. first + rows - 1 sees. The range starts at a multiple of 32.
template <typename T>
__device__ Range keys_of(const Call<T>& a, const Rules& r, int64_t b, int64_t first, int rows) {
  const int64_t last = first + rows < a.N ? first + rows - 1 : a.N - 1;
  const Range low = visible(r, a.query_start + first, a.document(b, first)),
              high = visible(r, a.query_start + last, a.document(b, last));
  return {low.begin / kWarp * kWarp, high.end};
}

// One block for 8 kRows queries of one head. With `merge` (o is f32) the results are combined with those of earlier
// keys.
template <typename T, typename O, int kDims, int kRows>
__global__ void attention_forward_kernel(Call<T> a, Heads<O> o, bool merge) {
  const DynamicShared shared;
  constexpr int kQueries = kWarps * kRows;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kQueries, h = blockIdx.y, b = blockIdx.z, E = a.E, D = a.D,
                g = h / (a.H / a.G);
  const int64_t q_at = 0, k_at = kQueries * E, v_at = k_at + kWarp * (E + 1);
  float max[kRows], sum[kRows], acc[kRows][kDims];
  for (int r = 0; r < kRows; ++r) {
    max[r] = -kInf;
    sum[r] = 0.0f;
    for (int j = 0; j < kDims; ++j) acc[r][j] = 0.0f;
  }
  for (int i = 0; i < a.sides; ++i) {
    const Side<T>& side = a.side[i];
    const Range keys = keys_of(a, side.rules, b, first, kQueries);
    __syncthreads();
    load_rows(side.q, b, h, first, a.N, kQueries, E, E, shared, q_at);
    for (int64_t tile = keys.begin; tile < keys.end; tile += kWarp) {
      __syncthreads();
      load_rows(side.k, b, g, tile, side.rules.keys, kWarp, E, E + 1, shared, k_at);
      load_rows(side.v, b, g, tile, side.rules.keys, kWarp, D, D, shared, v_at);
      __syncthreads();
      for (int r = 0; r < kRows; ++r) {
        const int64_t n = first + warp * kRows + r, s = tile + lane;
        const Range seen = n < a.N ? visible(side.rules, a.query_start + n, a.document(b, n)) : Range{0, 0};
        const bool sees = s >= seen.begin && s < seen.end;
        const float product = dot(shared, q_at + (warp * kRows + r) * E, k_at + lane * (E + 1), E);
        const float score = sees ? a.score(side.rules, b, h, n, s, product) : 0.0f;
        const float largest = warp_max(sees ? score : -kInf),
                    now = largest > max[r] || !(largest == largest) ? largest : max[r];
        if (now == -kInf) continue;  // the same for all lanes
        const float p = sees ? expf(score - now) : 0.0f, before = expf(max[r] - now);
        sum[r] = sum[r] * before + warp_sum(p);
        for (int j = 0; j < kDims; ++j) acc[r][j] *= before;
        max[r] = now;
        add_rows<kDims>(shared, v_at, D, D, p, lane, acc[r]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    const int64_t n = first + warp * kRows + r;
    if (n >= a.N) continue;
    const bool blind = sum[r] == 0.0f;
    float lse = blind ? -kInf : max[r] + logf(sum[r]), own = blind ? 0.0f : 1.0f / sum[r], earlier = 0.0f;
    if (merge) {
      const float old = *a.lse_of(b, h, n), top = old > lse ? old : lse;
      const float w_old = old == -kInf ? 0.0f : expf(old - top), w = blind ? 0.0f : expf(lse - top);
      if (w_old + w > 0.0f) {
        own *= w / (w_old + w);
        earlier = w_old / (w_old + w);
        lse = top + logf(w_old + w);
      }
    }
    O* out = o.row(b, n, h);
    for (int j = 0; j < kDims; ++j) {
      const int64_t d = lane + kWarp * j;
      if (d < D) store(out + d, acc[r][j] * own + (earlier > 0.0f ? earlier * load(out + d) : 0.0f));
    }
    __syncwarp();  // all lanes have read the old lse
    if (a.lse && lane == 0) *a.lse_of(b, h, n) = lse;
  }
}

// delta = sum_d do o, with one warp per row.
template <typename T>
__global__ void attention_delta_kernel(Call<T> a) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kWarps + warp, h = blockIdx.y, b = blockIdx.z;
  if (n >= a.N) return;  // the same for all lanes of the warp
  const T *o = a.o.row(b, n, h), *d_o = a.d_o.row(b, n, h);
  float sum = 0.0f;
  for (int64_t d = lane; d < a.D; d += kWarp) sum += load(o + d) * load(d_o + d);
  sum = warp_sum(sum);
  if (lane == 0) *a.delta_of(b, h, n) = sum;
}

// p and ds of a query and a key, from their dot products: ds = p (dp - delta).
struct Slope {
  float p, ds;
};
__device__ inline Slope slope_of(float score, float dp, float lse, float delta, bool sees) {
  const float p = sees && lse != -kInf ? expf(score - lse) : 0.0f;
  return {p, sees ? p * (dp - delta) : 0.0f};
}

// dq for 8 kRows queries of one head and one side.
template <typename T, typename O, int kDims, int kRows>
__global__ void attention_dq_kernel(Call<T> a, int which, Heads<O> dq, bool add) {
  const DynamicShared shared;
  constexpr int kQueries = kWarps * kRows;
  const Side<T>& side = a.side[which];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kQueries, h = blockIdx.y, b = blockIdx.z, E = a.E, D = a.D,
                g = h / (a.H / a.G);
  const int64_t q_at = 0, do_at = kQueries * E, k_at = do_at + kQueries * D, v_at = k_at + kWarp * (E + 1);
  float acc[kRows][kDims] = {}, sum[kRows] = {};
  const Range keys = keys_of(a, side.rules, b, first, kQueries);
  load_rows(side.q, b, h, first, a.N, kQueries, E, E, shared, q_at);
  load_rows(a.d_o, b, h, first, a.N, kQueries, D, D, shared, do_at);
  for (int64_t tile = keys.begin; tile < keys.end; tile += kWarp) {
    __syncthreads();
    load_rows(side.k, b, g, tile, side.rules.keys, kWarp, E, E + 1, shared, k_at);
    load_rows(side.v, b, g, tile, side.rules.keys, kWarp, D, D + 1, shared, v_at);
    __syncthreads();
    for (int r = 0; r < kRows; ++r) {
      const int row = warp * kRows + r;
      const int64_t n = first + row, s = tile + lane;
      if (n >= a.N) continue;  // the same for all lanes of the warp
      const Range seen = visible(side.rules, a.query_start + n, a.document(b, n));
      const bool sees = s >= seen.begin && s < seen.end;
      const float product = dot(shared, q_at + row * E, k_at + lane * (E + 1), E);
      const float score = sees ? a.score(side.rules, b, h, n, s, product) : 0.0f;
      const float dp = dot(shared, do_at + row * D, v_at + lane * (D + 1), D);
      const Slope x = slope_of(score, dp, *a.lse_of(b, h, n), *a.delta_of(b, h, n), sees);
      sum[r] += x.ds;
      add_rows<kDims>(shared, k_at, E + 1, E, x.ds, lane, acc[r]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    const int64_t n = first + warp * kRows + r;
    if (n >= a.N) continue;
    O* out = dq.row(b, n, h);
    const float all = a.ddecay.data ? warp_sum(sum[r]) : 0.0f;
    if (a.ddecay.data && lane == 0) a.dquery_decay.at(b, h, n) += all;
    for (int j = 0; j < kDims; ++j) {
      const int64_t d = lane + kWarp * j;
      if (d < E) store(out + d, a.scale * acc[r][j] + (add ? load(out + d) : 0.0f));
    }
  }
}

// The queries that may see keys first .. last.
template <typename T>
__device__ Range queries_of(const Call<T>& a, const Rules& r, int64_t first, int64_t last) {
  int64_t begin = r.causal ? first + r.hidden - a.query_start : 0, end = a.N;
  if (r.window > 0 && last + r.window - a.query_start < end) end = last + r.window - a.query_start;
  begin = begin < 0 ? 0 : begin / kWarp * kWarp;
  return {begin, end < 0 ? 0 : end};
}

// For 8 kRows keys of one kv head, over all queries of its group: dk += ds q, dv += p do.
template <typename T, int kDims, int kRows>
__device__ void add_key_gradients(const Call<T>& a, const Side<T>& side, int64_t first, const DynamicShared& shared,
                                  float (*dk)[kDims], float (*dv)[kDims]) {
  constexpr int kKeys = kWarps * kRows;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t g = blockIdx.y, b = blockIdx.z, E = a.E, D = a.D, group = a.H / a.G;
  const int64_t k_at = 0, v_at = kKeys * E, q_at = v_at + kKeys * D, do_at = q_at + kWarp * (E + 1);
  const int64_t last = first + kKeys < side.rules.keys ? first + kKeys - 1 : side.rules.keys - 1;
  __syncthreads();
  load_rows(side.k, b, g, first, side.rules.keys, kKeys, E, E, shared, k_at);
  load_rows(side.v, b, g, first, side.rules.keys, kKeys, D, D, shared, v_at);
  const Range queries = queries_of(a, side.rules, first, last);
  for (int64_t h = g * group; h < (g + 1) * group; ++h) {
    float sum[kRows] = {};
    for (int64_t tile = queries.begin; tile < queries.end; tile += kWarp) {
      __syncthreads();
      load_rows(side.q, b, h, tile, a.N, kWarp, E, E + 1, shared, q_at);
      load_rows(a.d_o, b, h, tile, a.N, kWarp, D, D + 1, shared, do_at);
      __syncthreads();
      const int64_t n = tile + lane;
      const bool there = n < a.N;
      const Range seen = there ? visible(side.rules, a.query_start + n, a.document(b, n)) : Range{0, 0};
      const float lse = there ? *a.lse_of(b, h, n) : 0.0f, delta = there ? *a.delta_of(b, h, n) : 0.0f;
      for (int r = 0; r < kRows; ++r) {
        const int row = warp * kRows + r;
        const int64_t s = first + row;
        const bool sees = s >= seen.begin && s < seen.end;
        const float product = dot(shared, k_at + row * E, q_at + lane * (E + 1), E);
        const float score = sees ? a.score(side.rules, b, h, n, s, product) : 0.0f;
        const float dp = dot(shared, v_at + row * D, do_at + lane * (D + 1), D);
        const Slope x = slope_of(score, dp, lse, delta, sees);
        sum[r] += x.ds;
        add_rows<kDims>(shared, do_at, D + 1, D, x.p, lane, dv[r]);
        add_rows<kDims>(shared, q_at, E + 1, E, x.ds, lane, dk[r]);
      }
    }
    for (int r = 0; a.ddecay.data && r < kRows; ++r) {
      const int64_t s = first + warp * kRows + r;
      const float all = warp_sum(sum[r]);
      if (lane == 0 && s < side.rules.keys) a.ddecay.at(b, h, s) -= all;
    }
  }
}

template <typename O, int kDims>
__device__ void store_row(const Heads<O>& to, int64_t b, int64_t s, int64_t g, int64_t D, float factor, const float* x,
                          bool add) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  O* out = to.row(b, s, g);
  for (int j = 0; j < kDims; ++j) {
    const int64_t d = lane + kWarp * j;
    if (d < D) store(out + d, factor * x[j] + (add ? load(out + d) : 0.0f));
  }
}

// Gradients of the keys of side `which` and of their values. If far keys have no values of their own, they use those of
// the first keys, so side 1 contributes to their dv here (dk_far.data is not null in that case).
template <typename T, typename O, int kDims, int kRows>
__global__ void attention_dkv_kernel(Call<T> a, int which, Heads<O> dk, Heads<O> dv, Heads<T> dk_far, bool add) {
  const DynamicShared shared;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kWarps * kRows, g = blockIdx.y, b = blockIdx.z;
  float key[kRows][kDims] = {}, far_key[kRows][kDims] = {}, value[kRows][kDims] = {};
  add_key_gradients<T, kDims, kRows>(a, a.side[which], first, shared, key, value);
  const bool far = dk_far.data != nullptr && first < a.side[1].rules.keys;
  if (far) add_key_gradients<T, kDims, kRows>(a, a.side[1], first, shared, far_key, value);
  for (int r = 0; r < kRows; ++r) {
    const int64_t s = first + warp * kRows + r;
    if (s >= a.side[which].rules.keys) continue;
    store_row<O, kDims>(dk, b, s, g, a.E, a.scale, key[r], add);
    store_row<O, kDims>(dv, b, s, g, a.D, 1.0f, value[r], add);
    if (far && s < a.side[1].rules.keys) store_row<T, kDims>(dk_far, b, s, g, a.E, a.scale, far_key[r], false);
  }
}

template <typename T, typename Args>
Call<T> call_of(const ops::AttentionOptions& o, const Args& a, TensorRef lse) {
  const int64_t E = a.q.size(3), D = a.v.size(3), most = E > D ? E : D;
  COCA_CHECK(most <= kMostDims, "[attention] the head dim {} is too large for a GPU; expected at most {}", most,
             kMostDims);
  Call<T> c{};
  c.N = a.q.size(1);
  c.H = a.q.size(2);
  c.G = a.k.size(2);
  c.E = E;
  c.D = D;
  c.query_start = o.query_start;
  c.scale = o.scale != 0.0f ? o.scale : 1.0f / std::sqrt(static_cast<float>(E));
  c.slopes = a.slopes.empty() ? nullptr : a.slopes.template as<float>();
  if (!a.document_start.empty()) {
    c.documents = a.document_start.template as<int32_t>();
    c.document_step = a.document_start.stride(0);
  }
  if (!a.decay.empty()) {
    c.decay = PerToken<const float>(a.decay);
    c.query_decay = PerToken<const float>(ops::queries_of(o, a.query_decay, a.decay, a.q));
  }
  if (!lse.empty()) {
    c.lse = const_cast<float*>(lse.as<float>());
    c.lse_b = lse.stride(0), c.lse_h = lse.stride(1), c.lse_n = lse.stride(2);
  }
  c.sides = a.far.k.empty() ? 1 : 2;
  Side<T>& near = c.side[0];
  near = {.rules = {.keys = a.k.size(1),
                    .causal = o.mask != ops::Mask::kNone,
                    .window = o.window,
                    .hidden = o.mask == ops::Mask::kSymmetricWindow ? 1 - o.window : 0,
                    .documents = c.documents != nullptr,
                    .query_step = o.spacing,
                    .key_step = o.spacing},
          .q = heads_of<T>(a.q),
          .k = heads_of<T>(a.k),
          .v = heads_of<T>(a.v)};
  if (c.sides == 1) return c;
  const bool all = a.far.range == ops::FarRange::kAll;
  c.side[1] = {.rules = {.keys = a.far.k.size(1),
                         .causal = !all,
                         .window = 0,
                         .hidden = o.window,
                         .documents = c.documents != nullptr && !all,
                         .offset = o.first_place,
                         .query_step = o.spacing,
                         .key_step = 1,
                         .most_distance = a.far.most_distance,
                         .most_position = a.far.most_position},
               .q = heads_of<T>(a.far.q),
               .k = heads_of<T>(a.far.k),
               .v = heads_of<T>(a.far.v.empty() ? a.v : a.far.v)};
  return c;
}

// Calls body(dims, rows) with the number of dims per lane and rows per warp as constants.
template <int n>
struct Constant {
  static constexpr int value = n;
};
template <typename Body>
void with_dims(int64_t D, const Body& body) {
  if (D <= 32) return body(Constant<1>{}, Constant<4>{});
  if (D <= 64) return body(Constant<2>{}, Constant<4>{});
  if (D <= 128) return body(Constant<4>{}, Constant<4>{});
  return body(Constant<8>{}, Constant<2>{});
}

Grid grid_of(int64_t rows, int per_block, int64_t heads, int64_t B, int64_t shared_floats) {
  return {.blocks = dim3(static_cast<unsigned>((rows + per_block - 1) / per_block), static_cast<unsigned>(heads),
                         static_cast<unsigned>(B)),
          .threads = kBlock,
          .shared_floats = static_cast<size_t>(shared_floats)};
}

template <typename T, typename O>
void forward_as(Context& cx, const ops::AttentionOptions& options, const ops::AttentionForward& a) {
  const Call<T> c = call_of<T>(options, a, a.lse);
  const int64_t B = a.q.size(0), E = c.E, D = c.D;
  if (B == 0 || c.N == 0) return;
  with_dims(D, [&](auto dims, auto rows) {
    constexpr int kDims = decltype(dims)::value, kRows = decltype(rows)::value, kQueries = kWarps * kRows;
    launch(cx, grid_of(c.N, kQueries, c.H, B, kQueries * E + kWarp * (E + 1 + D)),
           attention_forward_kernel<T, O, kDims, kRows>, c, mut_heads_of<O>(a.o), a.write == ops::Write::kAccumulate);
  });
}

template <typename T, typename O>
void backward_as(Context& cx, const ops::AttentionOptions& options, const ops::AttentionBackward& a) {
  Call<T> c = call_of<T>(options, a, a.lse);
  const int64_t B = a.q.size(0), S = a.k.size(1), E = c.E, D = c.D;
  if (B == 0 || c.N == 0) return;
  c.o = heads_of<T>(a.o);
  c.d_o = heads_of<T>(a.d_o);
  if (!a.decay.empty()) {
    c.ddecay = PerToken<float>(a.ddecay);
    c.dquery_decay = PerToken<float>(ops::queries_of(options, a.dquery_decay, a.ddecay, a.q));
  }
  c.delta = cx.scratch_tensor(Dims{B, c.H, c.N}).as<float>();
  const bool add = a.write == ops::Write::kAccumulate;
  launch(cx, grid_of(c.N, kWarps, c.H, B, 0), attention_delta_kernel<T>, c);
  with_dims(E > D ? E : D, [&](auto dims, auto rows) {
    constexpr int kDims = decltype(dims)::value, kRows = decltype(rows)::value, kTile = kWarps * kRows;
    const int64_t shared = kTile * (E + D) + kWarp * (E + D + 2);
    launch(cx, grid_of(c.N, kTile, c.H, B, shared), attention_dq_kernel<T, O, kDims, kRows>, c, 0,
           mut_heads_of<O>(a.dq), add);
    const bool own_values = !a.far.v.empty();
    launch(cx, grid_of(S, kTile, c.G, B, shared), attention_dkv_kernel<T, O, kDims, kRows>, c, 0, mut_heads_of<O>(a.dk),
           mut_heads_of<O>(a.dv), c.sides == 2 && !own_values ? mut_heads_of<T>(a.dk_far) : Heads<T>{}, add);
    if (c.sides == 1) return;
    launch(cx, grid_of(c.N, kTile, c.H, B, shared), attention_dq_kernel<T, T, kDims, kRows>, c, 1,
           mut_heads_of<T>(a.dq_far), false);
    if (own_values)
      launch(cx, grid_of(a.far.k.size(1), kTile, c.G, B, shared), attention_dkv_kernel<T, T, kDims, kRows>, c, 1,
             mut_heads_of<T>(a.dk_far), mut_heads_of<T>(a.dv_far), Heads<T>{}, false);
  });
}

void forward(Context& cx, const ops::AttentionOptions& options, const ops::AttentionForward& a) {
  if (a.q.dtype == DType::kF32) return forward_as<float, float>(cx, options, a);
  ops::with_float_type(a.o.dtype, [&]<typename O>(O) { forward_as<BF16, O>(cx, options, a); });
}

void backward(Context& cx, const ops::AttentionOptions& options, const ops::AttentionBackward& a) {
  if (a.q.dtype == DType::kF32) return backward_as<float, float>(cx, options, a);
  ops::with_float_type(a.dq.dtype, [&]<typename O>(O) { backward_as<BF16, O>(cx, options, a); });
}

__global__ void residue_starts_kernel(const int32_t* from, int64_t from_step, int32_t* to, int64_t to_step, int64_t B,
                                      int64_t n, int64_t first, int64_t residue, int64_t dilation) {
  for (int64_t i = grid_start(); i < B * n; i += grid_stride())
    to[i / n * to_step + i % n] =
        static_cast<int32_t>((from[i / n * from_step + first + i % n * dilation] - residue + dilation - 1) / dilation);
}

void residue_starts(Context& cx, const ops::ResidueStarts& a) {
  const int64_t B = a.starts.size(0), n = a.starts.size(1);
  launch(cx, {.blocks = blocks_for(B * n), .threads = kThreads}, residue_starts_kernel, a.document_start.as<int32_t>(),
         a.document_start.stride(0), a.starts.as<int32_t>(), a.starts.stride(0), B, n, a.first_query, a.residue,
         a.dilation);
}

}  // namespace

const ops::AttentionImpl attention_row{.name = "cuda", .device = DeviceKind::kCuda, .run = {forward, backward}};
const ops::DilatedAttentionImpl dilated_attention_row{
    .name = "cuda", .device = DeviceKind::kCuda, .run = {residue_starts}};

}  // namespace coca::cuda

// One warp per query and head. Its lanes compute the scores of 32 keys at a time. Scores that belong in the list are
// inserted one after another in the order of the keys, so that of two equal scores the earlier one stays first.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/top_keys.h"

#include <cmath>

#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cuda/rows.h"
#include "coca/kernels/cuda/simt.h"

namespace coca::cuda {

namespace {

constexpr int kWarps = 8;

struct Strides {
  int64_t b, n, h;
};
Strides strides_of(TensorRef t) { return {t.stride(0), t.stride(1), t.stride(2)}; }

// NaN ranks first, so that a NaN key is visible in the result.
__device__ inline bool in_front(float a, float b) { return a == a ? a > b : b == b; }

struct Find {
  int64_t N, H, group, D, keys, key_start, first, hidden, query_start, most_distance;
  int count;
  float scale;
  const float* slopes;
  Strides q, k;
  float* scores;  // [B, N, H, count]
  int32_t* names;
};

// Inserts a score into the sorted list if it belongs there. Lane 0 does this for all lanes.
__device__ inline void insert(const Find& a, float* scores, int32_t* names, float score, int64_t key) {
  int at = a.count;
  while (at > 0 && (names[at - 1] < 0 || in_front(score, scores[at - 1]))) --at;
  if (at == a.count) return;
  for (int i = a.count - 1; i > at; --i) {
    scores[i] = scores[i - 1];
    names[i] = names[i - 1];
  }
  scores[at] = score;
  names[at] = static_cast<int32_t>(key);
}

template <typename Q, typename K>
__global__ void find_kernel(Find a, const Q* q_data, const K* k_data, int64_t rows) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= rows) return;  // the same for all lanes of the warp
  const int64_t h = row % a.H, n = row / a.H % a.N, b = row / a.H / a.N, m = a.query_start + n;
  float* scores = a.scores + row * a.count;
  int32_t* names = a.names + row * a.count;
  if (a.key_start == 0)
    for (int i = lane; i < a.count; i += kWarp) {
      scores[i] = -INFINITY;
      names[i] = -1;
    }
  __syncwarp();
  const Q* q = q_data + b * a.q.b + n * a.q.n + h * a.q.h;
  const int64_t begin = a.first > a.key_start ? a.first : a.key_start, behind = m - a.hidden + 1,
                end = behind < a.key_start + a.keys ? behind : a.key_start + a.keys;
  for (int64_t tile = begin; tile < end; tile += kWarp) {
    const int64_t s = tile + lane;
    float score = -INFINITY;
    if (s < end) {
      const K* k = k_data + b * a.k.b + (s - a.key_start) * a.k.n + h / a.group * a.k.h;
      float sum = 0.0f;
      for (int64_t d = 0; d < a.D; ++d) sum += load(q + d) * load(k + d);
      score = a.scale * sum;
      const int64_t distance = a.most_distance > 0 && m - s > a.most_distance ? a.most_distance : m - s;
      if (a.slopes) score -= a.slopes[h] * static_cast<float>(distance);
    }
    const bool wanted = s < end && (names[a.count - 1] < 0 || in_front(score, scores[a.count - 1]));
    unsigned left = __ballot_sync(kAllLanes, wanted);
    for (int from = 0; left != 0; ++from, left >>= 1) {
      const float given = __shfl_sync(kAllLanes, score, from);
      if (lane == 0 && (left & 1u) != 0) insert(a, scores, names, given, tile + from);
    }
    __syncwarp();  // the next tile reads the list
  }
}

struct Add {
  int64_t N, H, group, D, keys, key_start;
  int count;
  const float* scores;  // [B, N, H, count]
  const int32_t* names;
  Strides v, o;
  float* lse;
  int64_t lse_b, lse_h, lse_n;
};

template <typename V, typename O>
__global__ void add_kernel(Add a, const V* v, O* o_data, int64_t rows) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= rows) return;  // the same for all lanes of the warp
  const int64_t h = row % a.H, n = row / a.H % a.N, b = row / a.H / a.N;
  const float* scores = a.scores + row * a.count;
  const int32_t* names = a.names + row * a.count;
  const auto here = [&](int i) { return names[i] >= a.key_start && names[i] < a.key_start + a.keys; };
  float* lse = a.lse + b * a.lse_b + h * a.lse_h + n * a.lse_n;
  const float old = *lse;
  float largest = old;
  bool any = false;
  for (int i = 0; i < a.count; ++i)
    if (here(i)) {
      any = true;
      if (in_front(scores[i], largest)) largest = scores[i];
    }
  if (!any) return;  // the same for all lanes
  const float before = expf(old - largest);
  float sum = before;
  for (int i = 0; i < a.count; ++i)
    if (here(i)) sum += expf(scores[i] - largest);
  O* o = o_data + b * a.o.b + n * a.o.n + h * a.o.h;
  for (int64_t d = lane; d < a.D; d += kWarp) {
    float x = before * load(o + d);
    for (int i = 0; i < a.count; ++i)
      if (here(i))
        x += expf(scores[i] - largest) *
             load(v + b * a.v.b + (names[i] - a.key_start) * a.v.n + h / a.group * a.v.h + d);
    store(o + d, x / sum);
  }
  __syncwarp();  // all lanes have read the old lse
  if (lane == 0) *lse = largest + logf(sum);
}

Grid grid_of(int64_t rows) {
  return {.blocks = static_cast<unsigned>((rows + kWarps - 1) / kWarps), .threads = kWarps * kWarp};
}

void find(Context& cx, const ops::TopKeysOptions& o, const ops::TopKeysFind& a) {
  const int64_t D = a.q.size(3), rows = a.q.size(0) * a.q.size(1) * a.q.size(2);
  if (rows == 0) return;
  const Find find{.N = a.q.size(1),
                  .H = a.q.size(2),
                  .group = a.q.size(2) / a.k.size(2),
                  .D = D,
                  .keys = a.k.size(1),
                  .key_start = a.key_start,
                  .first = o.first,
                  .hidden = o.hidden,
                  .query_start = o.query_start,
                  .most_distance = o.most_distance,
                  .count = static_cast<int>(o.count),
                  .scale = o.scale != 0.0f ? o.scale : 1.0f / std::sqrt(static_cast<float>(D)),
                  .slopes = a.slopes.empty() ? nullptr : a.slopes.as<float>(),
                  .q = strides_of(a.q),
                  .k = strides_of(a.k),
                  .scores = a.scores.as<float>(),
                  .names = a.keys.as<int32_t>()};
  ops::with_float_type(a.q.dtype, [&]<typename Q>(Q) {
    ops::with_float_type(a.k.dtype, [&]<typename K>(K) {
      launch(cx, grid_of(rows), find_kernel<Q, K>, find, a.q.as<Q>(), a.k.as<K>(), rows);
    });
  });
}

void add(Context& cx, const ops::TopKeysAdd& a) {
  const int64_t rows = a.o.size(0) * a.o.size(1) * a.o.size(2);
  if (rows == 0) return;
  const Add add{.N = a.o.size(1),
                .H = a.o.size(2),
                .group = a.o.size(2) / a.v.size(2),
                .D = a.o.size(3),
                .keys = a.v.size(1),
                .key_start = a.key_start,
                .count = static_cast<int>(a.scores.size(3)),
                .scores = a.scores.as<float>(),
                .names = a.keys.as<int32_t>(),
                .v = strides_of(a.v),
                .o = strides_of(a.o),
                .lse = a.lse.as<float>(),
                .lse_b = a.lse.stride(0),
                .lse_h = a.lse.stride(1),
                .lse_n = a.lse.stride(2)};
  ops::with_float_type(a.v.dtype, [&]<typename V>(V) {
    ops::with_float_type(a.o.dtype, [&]<typename O>(O) {
      launch(cx, grid_of(rows), add_kernel<V, O>, add, a.v.as<V>(), a.o.as<O>(), rows);
    });
  });
}

}  // namespace

const ops::TopKeysImpl top_keys_row{.name = "cuda", .device = DeviceKind::kCuda, .run = {find, add}};

}  // namespace coca::cuda

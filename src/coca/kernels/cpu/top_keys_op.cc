// Packing, the lists, and how the work is spread. Math: docs/math/top_keys.md.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>

#include "coca/base/parallel.h"
#include "coca/kernels/args/blocks.h"
#include "coca/kernels/args/head_access.h"
#include "coca/kernels/cpu/rows.h"
#include "coca/kernels/cpu/top_keys.h"
#include "coca/kernels/ref/top_keys.h"

namespace coca::cpu {

namespace {

constexpr int64_t kTile = kTopKeysTile;
// Keys packed at a time, and query rows of one kv head per task: tiles and rows stay in the caches.
constexpr int64_t kPacked = 1024, kTaskRows = 64;

// Keys [from, from + n) of (b, g), tile by tile transposed; keys that do not exist are zero.
void pack_tile(TensorRef k, int64_t b, int64_t g, int64_t from, int64_t n, float* head, float* tile) {
  const int64_t D = k.size(3);
  if (n < kTile) std::fill_n(tile, D * kTile, 0.0f);
  for (int64_t i = 0; i < n; ++i) {
    ops::load_head(k, b, from + i, g, head);
    for (int64_t d = 0; d < D; ++d) tile[d * kTile + i] = head[d];
  }
}

// A row's list, continued by the scores of keys begin .. end-1 that stand in `scores` from `offset` on.
void extend_list(const float* scores, int64_t offset, int64_t begin, int64_t end, int64_t K, float* list,
                 int32_t* names) {
  for (int64_t s = begin; s < end; ++s) {
    const float score = scores[s - offset];
    int64_t at = K;
    while (at > 0 && (names[at - 1] < 0 || ref::in_front(score, list[at - 1]))) --at;
    if (at == K) continue;
    std::copy_backward(list + at, list + K - 1, list + K);
    std::copy_backward(names + at, names + K - 1, names + K);
    list[at] = score;
    names[at] = static_cast<int32_t>(s);
  }
}

struct FindPlan {
  const ops::TopKeysOptions& o;
  const ops::TopKeysFind& a;
  int64_t B = a.q.size(0), N = a.q.size(1), H = a.q.size(2), D = a.q.size(3), G = a.k.size(2), group = H / G;
  int64_t chunks = (N * group + kTaskRows - 1) / kTaskRows;
  float scale = o.scale != 0.0f ? o.scale : 1.0f / std::sqrt(static_cast<float>(D));
  int64_t last_key() const {
    return std::min(a.key_start + a.k.size(1), o.query_start + N - o.hidden);
  }  // one after it
};

// Rows of one chunk and kv head over the packed keys [begin, end).
void find_rows(const FindPlan& p, int64_t bg, int64_t chunk, int64_t begin, int64_t end, const float* tiles,
               float* work) {
  float *q = work, *scores = work + p.D;
  const int64_t b = bg / p.G, g = bg % p.G, rows = std::min(kTaskRows, p.N * p.group - chunk * kTaskRows);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t r = chunk * kTaskRows + i, n = r / p.group, h = g * p.group + r % p.group, m = p.o.query_start + n;
    const int64_t first = std::max(begin, p.o.first), stop = std::min(end, m - p.o.hidden + 1);
    if (first >= stop) continue;
    ops::load_head(p.a.q, b, n, h, q);
    for (int64_t d = 0; d < p.D; ++d) q[d] *= p.scale;
    const int64_t list = ((b * p.N + n) * p.H + h) * p.o.count;
    for (int64_t t = first / kTile * kTile; t < stop; t += kTile) {
      top_keys_scores(q, tiles + (t - begin) * p.D, p.D, scores);
      if (!p.a.slopes.empty()) {
        const float slope = p.a.slopes.as<float>()[h];
        const int64_t most = p.o.most_distance > 0 ? p.o.most_distance : std::numeric_limits<int64_t>::max();
        for (int64_t s = t; s < t + kTile; ++s) scores[s - t] -= slope * static_cast<float>(std::min(m - s, most));
      }
      extend_list(scores, t, std::max(first, t), std::min(stop, t + kTile), p.o.count, p.a.scores.as<float>() + list,
                  p.a.keys.as<int32_t>() + list);
    }
  }
}

void find(Context& context, const ops::TopKeysOptions& options, const ops::TopKeysFind& a) {
  if (a.key_start == 0) ref::clear_lists(a.scores.view<float, 4>(), a.keys.view<int32_t, 4>());
  const FindPlan p{options, a};
  const int64_t groups = p.B * p.G, tiles = std::min(kPacked, (p.a.k.size(1) + kTile - 1) / kTile * kTile) / kTile;
  const auto own = static_cast<size_t>(2 * p.D + kTile), packed = static_cast<size_t>(groups * tiles * kTile * p.D);
  auto* memory =
      static_cast<float*>(context.scratch((packed + own * static_cast<size_t>(max_threads())) * sizeof(float)));
  const auto work = [&] { return memory + packed + own * static_cast<size_t>(thread_index()); };
  const int64_t last = p.last_key();
  for (int64_t begin = std::max(p.a.key_start, p.o.first / kTile * kTile); begin < last; begin += tiles * kTile) {
    const int64_t end = std::min(last, begin + tiles * kTile), used = (end - begin + kTile - 1) / kTile;
    parallel_for(groups * used, [&](int64_t i) {
      const int64_t bg = i / used, from = begin + i % used * kTile;
      pack_tile(p.a.k, bg / p.G, bg % p.G, from - p.a.key_start, std::min(kTile, p.a.key_start + p.a.k.size(1) - from),
                work(), memory + (bg * tiles + i % used) * kTile * p.D);
    });
    parallel_for(groups * p.chunks, [&](int64_t i) {
      find_rows(p, i / p.chunks, i % p.chunks, begin, end, memory + i / p.chunks * tiles * kTile * p.D, work());
    });
  }
}

// One row: o becomes (e^lse o + sum of e^score v) / sum, lse its logarithm.
void add_row(const ops::TopKeysAdd& a, int64_t b, int64_t n, int64_t h, float* work) {
  const int64_t N = a.o.size(1), H = a.o.size(2), D = a.o.size(3), K = a.scores.size(3), G = a.v.size(2);
  const int64_t list = ((b * N + n) * H + h) * K;
  const float* scores = a.scores.as<float>() + list;
  const int32_t* keys = a.keys.as<int32_t>() + list;
  float& lse = *a.lse.view<float, 3>().ptr(b, h, n);
  const auto here = [&](int64_t i) { return keys[i] >= a.key_start && keys[i] < a.key_start + a.v.size(1); };
  float largest = lse;
  bool any = false;
  for (int64_t i = 0; i < K; ++i) {
    if (!here(i)) continue;
    any = true;
    if (ref::in_front(scores[i], largest)) largest = scores[i];
  }
  if (!any) return;
  float *x = work, *y = work + D, sum = std::exp(lse - largest);
  ops::load_head(a.o, b, n, h, x);
  float factor = sum;
  for (int64_t i = 0; i < K; ++i) {
    if (!here(i)) continue;
    ops::load_head(a.v, b, keys[i] - a.key_start, h / (H / G), y);
    const float p = std::exp(scores[i] - largest);
    top_keys_mix(x, factor, y, p, D);
    sum += p;
    factor = 1.0f;
  }
  for (int64_t d = 0; d < D; ++d) x[d] /= sum;
  ops::store_head(x, 1.0f, a.o, b, n, h);
  lse = largest + std::log(sum);
}

void add(Context& context, const ops::TopKeysAdd& a) {
  const int64_t B = a.o.size(0), N = a.o.size(1), H = a.o.size(2), D = a.o.size(3);
  const auto own = static_cast<size_t>(2 * D);
  auto* memory = static_cast<float*>(context.scratch(own * static_cast<size_t>(max_threads()) * sizeof(float)));
  parallel_blocks(B * N * H, ops::grain_of(a.scores.size(3) * D), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      add_row(a, i / H / N, i / H % N, i % H, memory + own * static_cast<size_t>(thread_index()));
  });
}

}  // namespace

const ops::TopKeysImpl top_keys_row{.name = "cpu", .run = {find, add}};

}  // namespace coca::cpu

// Checks, packing, the lists, and how the work is spread. Math: docs/math/top_keys.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/top_keys.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/top_keys.h"
#include "coca/kernels/ref/top_keys.h"
#include "coca/ops/float_types.h"
#include "coca/ops/impl.h"
#include "coca/ops/rope_check.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "top_keys";
constexpr int64_t kTile = cpu::kTopKeysTile;
// Keys packed at a time, and query rows of one kv head per task: tiles and rows stay in the caches.
constexpr int64_t kPacked = 1024, kTaskRows = 64;

void check_lists(TensorRef scores, TensorRef keys, const Dims& shape) {
  check_packed(kOp, "scores", scores, shape);
  check_packed(kOp, "keys", keys, shape, DType::kI32);
}

void check_find(const TopKeysOptions& o, const TopKeysFind& a) {
  COCA_CHECK(o.count >= 1, "[top_keys] count {} must be at least 1", o.count);
  COCA_CHECK(o.scale >= 0, "[top_keys] scale={} must be positive (0: 1/sqrt(D))", o.scale);
  COCA_CHECK(o.first >= 0 && o.hidden >= 1 && o.query_start >= 0 && o.most_distance >= 0,
             "[top_keys] first {}, query_start {} and most_distance {} must not be negative, hidden {} at least 1", o.first, o.query_start,
             o.most_distance, o.hidden);
  COCA_CHECK(a.q.rank() == 4 && a.k.rank() == 4, "[top_keys] q {} and k {} must be [B, N, H, D] and [B, n, G, D]", a.q.shape.text(), a.k.shape.text());
  const int64_t G = a.k.size(2);
  check_heads(kOp, "q", a.q, a.q.shape);
  check_heads(kOp, "k", a.k, {a.q.size(0), a.k.size(1), G, a.q.size(3)});
  COCA_CHECK(G > 0 && a.q.size(2) % G == 0, "[top_keys] H={} must be a multiple of G={}", a.q.size(2), G);
  COCA_CHECK(a.key_start >= 0 && a.key_start % kTile == 0, "[top_keys] key_start {} must be a multiple of {}", a.key_start, kTile);
  if (!a.slopes.empty()) check_packed(kOp, "slopes", a.slopes, {a.q.size(2)});
  check_lists(a.scores, a.keys, {a.q.size(0), a.q.size(1), a.q.size(2), o.count});
}

// One head of a strided tensor as floats.
void load_head(TensorRef t, int64_t b, int64_t n, int64_t h, float* out) {
  const int64_t at = b * t.stride(0) + n * t.stride(1) + h * t.stride(2), D = t.size(3);
  if (t.dtype == DType::kF32)
    std::copy_n(static_cast<const float*>(t.data) + at, D, out);
  else
    for (int64_t i = 0; i < D; ++i) out[i] = static_cast<float>(static_cast<const BF16*>(t.data)[at + i]);
}

void store_head(const float* x, MutTensorRef t, int64_t b, int64_t n, int64_t h) {
  const int64_t at = b * t.stride(0) + n * t.stride(1) + h * t.stride(2), D = t.size(3);
  for (int64_t i = 0; i < D; ++i) {
    if (t.dtype == DType::kF32)
      static_cast<float*>(t.data)[at + i] = x[i];
    else
      static_cast<BF16*>(t.data)[at + i] = BF16(x[i]);
  }
}

// Keys [from, from + n) of (b, g), tile by tile transposed; keys that do not exist are zero.
void pack_tile(TensorRef k, int64_t b, int64_t g, int64_t from, int64_t n, float* head, float* tile) {
  const int64_t D = k.size(3);
  if (n < kTile) std::fill_n(tile, D * kTile, 0.0f);
  for (int64_t i = 0; i < n; ++i) {
    load_head(k, b, from + i, g, head);
    for (int64_t d = 0; d < D; ++d) tile[d * kTile + i] = head[d];
  }
}

// A row's list, continued by the scores of keys begin .. end-1 that stand in `scores` from `offset` on.
void extend_list(const float* scores, int64_t offset, int64_t begin, int64_t end, int64_t K, float* list, int32_t* names) {
  for (int64_t s = begin; s < end; ++s) {
    const float score = scores[s - offset];
    int64_t at = K;
    while (at > 0 && (names[at - 1] < 0 || ref::in_front(score, list[at - 1]))) --at;
    if (at == K) continue;
    std::copy_backward(list + at, list + K - 1, list + K);
    std::copy_backward(names + at, names + K - 1, names + K);
    list[at] = score, names[at] = static_cast<int32_t>(s);
  }
}

struct FindPlan {
  const TopKeysOptions& o;
  const TopKeysFind& a;
  int64_t B = a.q.size(0), N = a.q.size(1), H = a.q.size(2), D = a.q.size(3), G = a.k.size(2), group = H / G;
  int64_t chunks = (N * group + kTaskRows - 1) / kTaskRows;
  float scale = o.scale != 0.0f ? o.scale : 1.0f / std::sqrt(static_cast<float>(D));
  int64_t last_key() const { return std::min(a.key_start + a.k.size(1), o.query_start + N - o.hidden); }  // one behind it
};

// Rows of one chunk and kv head over the packed keys [begin, end).
void find_rows(const FindPlan& p, int64_t bg, int64_t chunk, int64_t begin, int64_t end, const float* tiles, float* work) {
  float *q = work, *scores = work + p.D;
  const int64_t b = bg / p.G, g = bg % p.G, rows = std::min(kTaskRows, p.N * p.group - chunk * kTaskRows);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t r = chunk * kTaskRows + i, n = r / p.group, h = g * p.group + r % p.group, m = p.o.query_start + n;
    const int64_t first = std::max(begin, p.o.first), stop = std::min(end, m - p.o.hidden + 1);
    if (first >= stop) continue;
    load_head(p.a.q, b, n, h, q);
    for (int64_t d = 0; d < p.D; ++d) q[d] *= p.scale;
    const int64_t list = ((b * p.N + n) * p.H + h) * p.o.count;
    for (int64_t t = first / kTile * kTile; t < stop; t += kTile) {
      cpu::top_keys_scores(q, tiles + (t - begin) * p.D, p.D, scores);
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

void find_cpu(Context& context, const FindPlan& p) {
  const int64_t groups = p.B * p.G, tiles = std::min(kPacked, (p.a.k.size(1) + kTile - 1) / kTile * kTile) / kTile;
  const auto own = static_cast<size_t>(2 * p.D + kTile), packed = static_cast<size_t>(groups * tiles * kTile * p.D);
  auto* memory = static_cast<float*>(context.scratch((packed + own * static_cast<size_t>(max_threads())) * sizeof(float)));
  const auto work = [&] { return memory + packed + own * static_cast<size_t>(thread_index()); };
  const int64_t last = p.last_key();
  for (int64_t begin = std::max(p.a.key_start, p.o.first / kTile * kTile); begin < last; begin += tiles * kTile) {
    const int64_t end = std::min(last, begin + tiles * kTile), used = (end - begin + kTile - 1) / kTile;
    parallel_for(groups * used, [&](int64_t i) {
      const int64_t bg = i / used, from = begin + i % used * kTile;
      pack_tile(p.a.k, bg / p.G, bg % p.G, from - p.a.key_start, std::min(kTile, p.a.key_start + p.a.k.size(1) - from), work(),
                memory + (bg * tiles + i % used) * kTile * p.D);
    });
    parallel_for(groups * p.chunks, [&](int64_t i) {
      find_rows(p, i / p.chunks, i % p.chunks, begin, end, memory + i / p.chunks * tiles * kTile * p.D, work());
    });
  }
}

// One row: o becomes (e^lse o + sum of e^score v) / sum, lse its logarithm.
void add_row(const TopKeysAdd& a, int64_t b, int64_t n, int64_t h, float* work) {
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
  load_head(a.o, b, n, h, x);
  float factor = sum;
  for (int64_t i = 0; i < K; ++i) {
    if (!here(i)) continue;
    load_head(a.v, b, keys[i] - a.key_start, h / (H / G), y);
    const float p = std::exp(scores[i] - largest);
    cpu::top_keys_mix(x, factor, y, p, D);
    sum += p;
    factor = 1.0f;
  }
  for (int64_t d = 0; d < D; ++d) x[d] /= sum;
  store_head(x, a.o, b, n, h);
  lse = largest + std::log(sum);
}

}  // namespace

void top_keys_find(Context& context, const TopKeysOptions& options, const TopKeysFind& a) {
  check_find(options, a);
  if (a.key_start == 0) {
    std::fill_n(a.scores.as<float>(), a.scores.numel(), -std::numeric_limits<float>::infinity());
    std::fill_n(a.keys.as<int32_t>(), a.keys.numel(), -1);
  }
  const FindPlan plan{options, a};
  if (!use_ref(context, kOp)) return find_cpu(context, plan);
  ref::top_keys_find<float>({.count = options.count, .scale = plan.scale, .first = options.first, .hidden = options.hidden,
                             .query_start = options.query_start, .most_distance = options.most_distance,
                             .slopes = a.slopes.empty() ? nullptr : a.slopes.as<float>()},
                            FloatInput(a.q).ref().view<float, 4>(), FloatInput(a.k).ref().view<float, 4>(), a.key_start,
                            a.scores.view<float, 4>(), a.keys.view<int32_t, 4>());
}

void top_keys_add(Context& context, const TopKeysAdd& a) {
  COCA_CHECK(a.o.rank() == 4 && a.v.rank() == 4 && a.scores.rank() == 4, "[top_keys] o {}, v {} and scores {} must be [B, N, H, D], [B, n, G, D] and [B, N, H, count]",
             a.o.shape.text(), a.v.shape.text(), a.scores.shape.text());
  const int64_t B = a.o.size(0), N = a.o.size(1), H = a.o.size(2), D = a.o.size(3), G = a.v.size(2);
  check_heads(kOp, "o", a.o, a.o.shape);
  check_heads(kOp, "v", a.v, {B, a.v.size(1), G, D});
  COCA_CHECK(G > 0 && H % G == 0, "[top_keys] H={} must be a multiple of G={}", H, G);
  check_lists(a.scores, a.keys, {B, N, H, a.scores.size(3)});
  check_packed(kOp, "lse", a.lse, {B, H, N});
  if (use_ref(context, kOp)) {
    const FloatOutput o(a.o);
    ref::top_keys_add<float>(a.scores.view<float, 4>(), a.keys.view<int32_t, 4>(), FloatInput(a.v).ref().view<float, 4>(), a.key_start,
                             o.ref().view<float, 4>(), a.lse.view<float, 3>());
    return o.store();
  }
  const auto own = static_cast<size_t>(2 * D);
  auto* memory = static_cast<float*>(context.scratch(own * static_cast<size_t>(max_threads()) * sizeof(float)));
  parallel_blocks(B * N * H, grain_of(a.scores.size(3) * D), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      add_row(a, i / H / N, i / H % N, i % H, memory + own * static_cast<size_t>(thread_index()));
  });
}

}  // namespace coca::ops

// coca/kernels/ref/top_keys.h - the highest scoring keys of the middle, plainly. Math: docs/math/top_keys.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "coca/tensor/view.h"

namespace coca::ref {

struct TopKeysSpec {
  int64_t count = 1;
  double scale = 1.0;
  int64_t first = 0, hidden = 1, query_start = 0, most_distance = 0;  // ops/top_keys.h
  const float* slopes = nullptr;                                      // [H] or null
};

// Whether score a comes before b in a list. NaN comes first, so that a broken key shows.
template <typename T>
bool in_front(T a, T b) {
  return std::isnan(a) ? !std::isnan(b) : a > b;
}

// Lists without a key yet.
template <typename T>
void clear_lists(TensorView<T, 4> scores, TensorView<int32_t, 4> keys) {
  const int64_t count = scores.size(0) * scores.size(1) * scores.size(2) * scores.size(3);
  std::fill_n(scores.data, count, -std::numeric_limits<T>::infinity());
  std::fill_n(keys.data, count, -1);
}

// q [B, N, H, D], k [B, n, G, D], scores and keys [B, N, H, count] continued.
template <typename T>
void top_keys_find(const TopKeysSpec& spec, TensorView<const T, 4> q, TensorView<const T, 4> k, int64_t key_start,
                   TensorView<T, 4> scores, TensorView<int32_t, 4> keys) {
  const int64_t H = q.size(2), D = q.size(3), group = H / k.size(2), K = spec.count;
  for (int64_t b = 0; b < q.size(0); ++b)
    for (int64_t n = 0; n < q.size(1); ++n)
      for (int64_t h = 0; h < H; ++h)
        for (int64_t s = std::max(spec.first, key_start); s < key_start + k.size(1); ++s) {
          const int64_t m = spec.query_start + n;
          if (s > m - spec.hidden) break;
          T score(0);
          for (int64_t d = 0; d < D; ++d) score += q(b, n, h, d) * k(b, s - key_start, h / group, d);
          score *= T(spec.scale);
          const int64_t distance = spec.most_distance > 0 ? std::min(m - s, spec.most_distance) : m - s;
          if (spec.slopes) score -= T(static_cast<double>(spec.slopes[h]) * static_cast<double>(distance));
          T* list = scores.ptr(b, n, h);
          int32_t* names = keys.ptr(b, n, h);
          int64_t at = K;
          while (at > 0 && (names[at - 1] < 0 || in_front(score, list[at - 1]))) --at;
          if (at == K) continue;
          std::copy_backward(list + at, list + K - 1, list + K);
          std::copy_backward(names + at, names + K - 1, names + K);
          list[at] = score;
          names[at] = static_cast<int32_t>(s);
        }
}

// v [B, n, G, D]; o [B, N, H, D] and lse [B, H, N] updated.
template <typename T>
void top_keys_add(TensorView<const T, 4> scores, TensorView<const int32_t, 4> keys, TensorView<const T, 4> v,
                  int64_t key_start, TensorView<T, 4> o, TensorView<T, 3> lse) {
  const int64_t H = o.size(2), D = o.size(3), group = H / v.size(2);
  for (int64_t b = 0; b < o.size(0); ++b)
    for (int64_t n = 0; n < o.size(1); ++n)
      for (int64_t h = 0; h < H; ++h) {
        std::vector<int64_t> here;
        T largest = lse(b, h, n);
        for (int64_t i = 0; i < scores.size(3); ++i) {
          const int64_t s = keys(b, n, h, i);
          if (s < key_start || s >= key_start + v.size(1)) continue;
          here.push_back(i);
          if (in_front(scores(b, n, h, i), largest)) largest = scores(b, n, h, i);
        }
        if (here.empty()) continue;
        const T before = std::exp(lse(b, h, n) - largest);
        T sum = before;
        for (const int64_t i : here) sum += std::exp(scores(b, n, h, i) - largest);
        for (int64_t d = 0; d < D; ++d) {
          T x = before * o(b, n, h, d);
          for (const int64_t i : here)
            x += std::exp(scores(b, n, h, i) - largest) * v(b, keys(b, n, h, i) - key_start, h / group, d);
          o(b, n, h, d) = x / sum;
        }
        lse(b, h, n) = largest + std::log(sum);
      }
}

}  // namespace coca::ref

// coca/kernels/cuda/head_parts.h - kernels over [B, N, H, D] tensors with any strides before D. Each thread processes
// parts of heads: V neighbouring numbers with a single memory access. Internal to kernels/cuda.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "coca/kernels/args/rope.h"
#include "coca/kernels/cuda/simt.h"

namespace coca::cuda {

// V neighbouring numbers that are read or written with one access, aligned to their size, at most 16 bytes.
template <typename T, int V>
struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Pack {
  T x[V];
};
template <int V>
using Floats = Pack<float, V>;

template <int V, typename T>
__device__ inline Floats<V> load_part(const T* p) {
  const Pack<T, V> part = *reinterpret_cast<const Pack<T, V>*>(p);
  Floats<V> out;
  for (int i = 0; i < V; ++i) out.x[i] = load(part.x + i);
  return out;
}
template <int V, typename T>
__device__ inline void store_part(T* p, const Floats<V>& values) {
  Pack<T, V> part;
  for (int i = 0; i < V; ++i) store(part.x + i, values.x[i]);
  *reinterpret_cast<Pack<T, V>*>(p) = part;
}

// One part of one head.
struct Place {
  int64_t b, n;
  int h, part;
};

// Heads [B, N, H, D] with an innermost stride of 1 and any other strides. Data is null for an empty tensor.
template <typename T>
struct Heads {
  T* data = nullptr;
  int64_t stride_b = 0, stride_n = 0, stride_h = 0;
  __device__ T* row(int64_t b, int64_t n, int64_t h) const { return data + b * stride_b + n * stride_n + h * stride_h; }
  __device__ T* at(const Place& p) const { return row(p.b, p.n, p.h); }
};
template <typename T>
Heads<const T> heads_of(const TensorRef& t) {
  return t.empty() ? Heads<const T>{}
                   : Heads<const T>{static_cast<const T*>(t.data), t.stride(0), t.stride(1), t.stride(2)};
}
template <typename T>
Heads<T> mut_heads_of(const MutTensorRef& t) {
  return t.empty() ? Heads<T>{} : Heads<T>{static_cast<T*>(t.data), t.stride(0), t.stride(1), t.stride(2)};
}

// cos and sin [1 or B, N, R/2].
struct AngleRows {
  const float *cos, *sin;
  int64_t cos_b, cos_n, sin_b, sin_n;  // strides

  AngleRows() = default;
  explicit AngleRows(const ops::RopeRows& rows)
      : cos(rows.cos.as<float>()),
        sin(rows.sin.as<float>()),
        cos_b(rows.cos.size(0) == 1 ? 0 : rows.cos.stride(0)),
        cos_n(rows.cos.stride(1)),
        sin_b(rows.sin.size(0) == 1 ? 0 : rows.sin.stride(0)),
        sin_n(rows.sin.stride(1)) {}
  __device__ const float* cos_at(const Place& p) const { return cos + p.b * cos_b + p.n * cos_n; }
  __device__ const float* sin_at(const Place& p) const { return sin + p.b * sin_b + p.n * sin_n; }
};

// Whether every row of t (along the last dimension) is aligned so that V of its numbers can be read with one access.
inline bool takes_parts_of(int V, const TensorRef& t) {
  const auto size = static_cast<int64_t>(dtype_size(t.dtype));
  const auto bytes = static_cast<uintptr_t>(std::min<int64_t>(16, V * size));
  bool takes = reinterpret_cast<uintptr_t>(t.data) % bytes == 0;
  for (int i = 0; i + 1 < t.rank(); ++i) takes = takes && (t.size(i) == 1 || t.stride(i) % V == 0);
  return takes;
}

// Calls body(std::integral_constant<int, V>) with the largest V of 8 (only if a tensor has elements of 2 bytes or
// fewer), 4 and 1 that divides all `counts` and suits the alignment of all tensors.
template <typename Body>
void with_parts(std::initializer_list<int64_t> counts, std::initializer_list<TensorRef> tensors, const Body& body) {
  const auto fits = [&](int V) {
    return std::all_of(counts.begin(), counts.end(), [&](int64_t count) { return count % V == 0; }) &&
           std::all_of(tensors.begin(), tensors.end(), [&](const TensorRef& t) { return takes_parts_of(V, t); });
  };
  const bool narrow =
      std::any_of(tensors.begin(), tensors.end(), [](const TensorRef& t) { return dtype_size(t.dtype) <= 2; });
  if (narrow && fits(8)) return body(std::integral_constant<int, 8>());
  if (fits(4)) return body(std::integral_constant<int, 4>());
  body(std::integral_constant<int, 1>());
}

struct PartCounts {
  int64_t B, N, H, parts;
};

// A row of threads processes the heads of one token, whose parts are adjacent.
template <typename Body>
__global__ void parts_kernel(int64_t tokens, int64_t N, int parts, int all, Body body) {
  const int64_t token = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (token >= tokens) return;
  const int64_t b = token / N, n = token - b * N;
  for (int i = static_cast<int>(threadIdx.x); i < all; i += static_cast<int>(blockDim.x)) {
    const int h = i / parts;
    body(Place{b, n, h, i - h * parts});
  }
}

// Calls body(Place) for every part of every head. Body is a struct of numbers and device pointers.
template <typename Body>
void each_part(Context& cx, const PartCounts& c, const Body& body) {
  const int64_t tokens = c.B * c.N, all = c.H * c.parts;
  if (tokens == 0 || all == 0) return;
  const int64_t x = std::min<int64_t>(kThreads, (all + kWarp - 1) / kWarp * kWarp),
                y = std::min<int64_t>(kThreads / x, tokens);
  launch(cx,
         {.blocks = static_cast<unsigned>((tokens + y - 1) / y),
          .threads = {static_cast<unsigned>(x), static_cast<unsigned>(y)}},
         parts_kernel<Body>, tokens, c.N, static_cast<int>(c.parts), static_cast<int>(all), body);
}

}  // namespace coca::cuda

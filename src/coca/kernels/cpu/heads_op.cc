// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "coca/base/parallel.h"
#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cpu/rows.h"

namespace coca::cpu {

namespace {

// body(b, n, h) for every head.
template <typename Body>
void each_head(const Dims& shape, const Body& body) {
  const int64_t N = shape[1], H = shape[2];
  parallel_blocks(shape[0] * N, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t h = 0; h < H; ++h) body(i / N, i % N, h);
  });
}

template <typename Ref>
int64_t head_at(const Ref& t, int64_t b, int64_t n, int64_t h) {
  return b * t.stride(0) + n * t.stride(1) + h * t.stride(2);
}

// to = result(from, to), number by number, in fp32 and rounded once.
template <typename Result>
void combine(TensorRef from, MutTensorRef to, const Result& result) {
  ops::with_float_type(from.dtype, [&](auto x_zero) {
    ops::with_float_type(to.dtype, [&](auto y_zero) {
      const auto source = from.view<decltype(x_zero), 4>();
      const auto target = to.view<decltype(y_zero), 4>();
      each_head(to.shape, [&](int64_t b, int64_t n, int64_t h) {
        const auto* x = source.ptr(b, n, h);
        auto* y = target.ptr(b, n, h);
        for (int64_t d = 0; d < to.size(3); ++d)
          y[d] = static_cast<decltype(y_zero)>(result(static_cast<float>(x[d]), static_cast<float>(y[d])));
      });
    });
  });
}

void zero(Context&, MutTensorRef t) {
  ops::with_float_type(t.dtype, [&](auto zero) {
    const auto view = t.view<decltype(zero), 4>();
    each_head(t.shape,
              [&](int64_t b, int64_t n, int64_t h) { std::fill_n(view.ptr(b, n, h), t.size(3), decltype(zero){}); });
  });
}

void copy(Context&, TensorRef from, MutTensorRef to) {
  if (from.dtype != to.dtype) return combine(from, to, [](float x, float) { return x; });
  const auto element = static_cast<int64_t>(dtype_size(from.dtype));
  const auto* source = static_cast<const std::byte*>(from.data);
  auto* target = static_cast<std::byte*>(to.data);
  const auto bytes = static_cast<size_t>(from.size(3) * element);
  each_head(from.shape, [&](int64_t b, int64_t n, int64_t h) {
    std::memcpy(target + head_at(to, b, n, h) * element, source + head_at(from, b, n, h) * element, bytes);
  });
}

void add(Context&, TensorRef from, MutTensorRef to) {
  combine(from, to, [](float x, float y) { return y + x; });
}

}  // namespace

const ops::HeadsImpl heads_row{.name = "cpu", .run = {zero, copy, add}};

}  // namespace coca::cpu

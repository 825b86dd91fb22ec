// Zeroing, copying and adding of heads: one pass over memory each.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cuda/head_parts.h"
#include "coca/kernels/cuda/rows.h"

namespace coca::cuda {

namespace {

template <typename T, int V>
struct Zero {
  Heads<T> to;
  __device__ void operator()(const Place& p) const { store_part<V>(to.at(p) + p.part * V, Floats<V>{}); }
};

// Elements of any type, identified by their size.
template <typename T, int V>
struct Copy {
  Heads<const T> from;
  Heads<T> to;
  __device__ void operator()(const Place& p) const {
    *reinterpret_cast<Pack<T, V>*>(to.at(p) + p.part * V) =
        *reinterpret_cast<const Pack<T, V>*>(from.at(p) + p.part * V);
  }
};

// to = from, or to += from in fp32, rounded once.
template <typename X, typename Y, int V, bool kAdd>
struct Combine {
  Heads<const X> from;
  Heads<Y> to;
  __device__ void operator()(const Place& p) const {
    Y* y = to.at(p) + p.part * V;
    Floats<V> sum = load_part<V>(from.at(p) + p.part * V);
    if constexpr (kAdd) {
      const Floats<V> old = load_part<V>(y);
      for (int i = 0; i < V; ++i) sum.x[i] = old.x[i] + sum.x[i];
    }
    store_part<V>(y, sum);
  }
};

PartCounts counts_of(const Dims& shape, int V) { return {shape[0], shape[1], shape[2], shape[3] / V}; }

void zero(Context& cx, MutTensorRef t) {
  ops::with_float_type(t.dtype, [&]<typename T>(T) {
    with_parts({t.size(3)}, {t}, [&]<int V>(std::integral_constant<int, V>) {
      each_part(cx, counts_of(t.shape, V), Zero<T, V>{mut_heads_of<T>(t)});
    });
  });
}

template <typename T>
void copy_as(Context& cx, TensorRef from, MutTensorRef to) {
  with_parts({to.size(3)}, {from, to}, [&]<int V>(std::integral_constant<int, V>) {
    each_part(cx, counts_of(to.shape, V), Copy<T, V>{heads_of<T>(from), mut_heads_of<T>(to)});
  });
}

template <bool kAdd>
void combine(Context& cx, TensorRef from, MutTensorRef to) {
  ops::with_float_type(from.dtype, [&]<typename X>(X) {
    ops::with_float_type(to.dtype, [&]<typename Y>(Y) {
      with_parts({to.size(3)}, {from, to}, [&]<int V>(std::integral_constant<int, V>) {
        each_part(cx, counts_of(to.shape, V), Combine<X, Y, V, kAdd>{heads_of<X>(from), mut_heads_of<Y>(to)});
      });
    });
  });
}

void copy(Context& cx, TensorRef from, MutTensorRef to) {
  if (from.dtype != to.dtype) return combine<false>(cx, from, to);
  switch (dtype_size(to.dtype)) {
    case 1: return copy_as<uint8_t>(cx, from, to);
    case 2: return copy_as<uint16_t>(cx, from, to);
    case 4: return copy_as<uint32_t>(cx, from, to);
    default: return copy_as<uint64_t>(cx, from, to);
  }
}

void add(Context& cx, TensorRef from, MutTensorRef to) { combine<true>(cx, from, to); }

}  // namespace

const ops::HeadsImpl heads_row{.name = "cuda", .device = DeviceKind::kCuda, .run = {zero, copy, add}};

}  // namespace coca::cuda

// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cuda/head_parts.h"
#include "coca/kernels/cuda/rows.h"

namespace coca::cuda {

namespace {

// The first half / V parts are pairs (j, j + half); the other dims do not rotate.
template <typename T, int V>
struct Rotate {
  AngleRows rows;
  Heads<const T> x;
  Heads<T> y;
  int half;
  float sign;  // -1: rotates back
  __device__ void operator()(const Place& p) const {
    const T* from = x.at(p);
    T* to = y.at(p);
    const int j = p.part * V;
    if (j >= half) return store_part<V>(to + half + j, load_part<V>(from + half + j));
    const Floats<V> c = load_part<V>(rows.cos_at(p) + j), s = load_part<V>(rows.sin_at(p) + j);
    Floats<V> a = load_part<V>(from + j), b = load_part<V>(from + j + half);
    for (int i = 0; i < V; ++i) {
      const float sin = sign * s.x[i], first = a.x[i] * c.x[i] - b.x[i] * sin;
      b.x[i] = b.x[i] * c.x[i] + a.x[i] * sin;
      a.x[i] = first;
    }
    store_part<V>(to + j, a);
    store_part<V>(to + j + half, b);
  }
};

void rotate(Context& cx, const ops::RopeRows& rows, TensorRef x, MutTensorRef y, float sign) {
  const int64_t half = rows.cos.size(2), D = x.size(3);
  ops::with_float_type(x.dtype, [&]<typename T>(T) {
    with_parts({half, D}, {rows.cos, rows.sin, x, y}, [&]<int V>(std::integral_constant<int, V>) {
      each_part(cx, {x.size(0), x.size(1), x.size(2), (D - half) / V},
                Rotate<T, V>{.rows = AngleRows(rows),
                             .x = heads_of<T>(x),
                             .y = mut_heads_of<T>(y),
                             .half = static_cast<int>(half),
                             .sign = sign});
    });
  });
}

void forward(Context& cx, const ops::RopeForward& a) { rotate(cx, a.rows, a.x, a.y, 1.0f); }
// The rotation is orthogonal, so its gradient is the rotation by the negative angle.
void backward(Context& cx, const ops::RopeBackward& a) { rotate(cx, a.rows, a.dy, a.dx, -1.0f); }

}  // namespace

const ops::RopeImpl rope_row{.name = "cuda", .device = DeviceKind::kCuda, .run = {forward, backward}};

}  // namespace coca::cuda

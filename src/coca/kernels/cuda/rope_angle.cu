// A thread processes neighbouring angles of a token and sums over its heads, in order.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/rope_angle.h"

#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cuda/head_parts.h"
#include "coca/kernels/cuda/rows.h"

namespace coca::cuda {

namespace {

using ops::AngleOf;

template <typename T, int V>
struct AnglesBack {
  AngleOf kind;
  AngleRows rows;
  Heads<const T> x, dy;
  float* dangle;
  int64_t N;
  int H, half;
  __device__ void operator()(const Place& p) const {
    const int j = p.part * V;
    float* out = dangle + (p.b * N + p.n) * half + j;
    Floats<V> sum = load_part<V>(out), c{}, s{};
    if (kind != AngleOf::kRotated) {
      c = load_part<V>(rows.cos_at(p) + j);
      s = load_part<V>(rows.sin_at(p) + j);
    }
    for (int h = 0; h < H; ++h) {
      const Place at{p.b, p.n, h, p.part};
      const Floats<V> first = load_part<V>(x.at(at) + j), second = load_part<V>(x.at(at) + j + half),
                      da = load_part<V>(dy.at(at) + j), db = load_part<V>(dy.at(at) + j + half);
      for (int i = 0; i < V; ++i) {
        float a = first.x[i], b = second.x[i];
        if (kind == AngleOf::kTied) a = b = (a + b) * 0.5f;
        sum.x[i] += kind == AngleOf::kRotated
                        ? a * db.x[i] - b * da.x[i]
                        : db.x[i] * b * (a * c.x[i] - b * s.x[i]) - da.x[i] * a * (b * c.x[i] + a * s.x[i]);
      }
    }
    store_part<V>(out, sum);
  }
};

void backward(Context& cx, const ops::RopeAngleBackward& a) {
  const int64_t half = a.rows.cos.size(2), N = a.x.size(1);
  ops::with_float_type(a.x.dtype, [&]<typename T>(T) {
    with_parts({half}, {a.rows.cos, a.rows.sin, a.x, a.dy, a.dangle}, [&]<int V>(std::integral_constant<int, V>) {
      each_part(cx, {a.x.size(0), N, 1, half / V},
                AnglesBack<T, V>{.kind = a.kind,
                                 .rows = AngleRows(a.rows),
                                 .x = heads_of<T>(a.x),
                                 .dy = heads_of<T>(a.dy),
                                 .dangle = a.dangle.as<float>(),
                                 .N = N,
                                 .H = static_cast<int>(a.x.size(2)),
                                 .half = static_cast<int>(half)});
    });
  });
}

}  // namespace

const ops::RopeAngleImpl rope_angle_row{.name = "cuda", .device = DeviceKind::kCuda, .run = {backward}};

}  // namespace coca::cuda

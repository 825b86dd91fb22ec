// A thread processes neighbouring angles of a token and sums over its heads, in order.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/rope_angle.h"

#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cuda/head_parts.h"
#include "coca/kernels/cuda/rows.h"

namespace coca::cuda {

namespace {

// In the place of a form, for operands that are themselves the result of a rotation.
struct Rotated {};

template <typename Form, typename T, int V>
struct AnglesBack {
  static constexpr bool kRotated = std::is_same_v<Form, Rotated>;
  AngleRows rows;
  Heads<const T> x, dy;
  float* dangle;
  int64_t N;
  int H, half;
  static constexpr bool pairs() {
    if constexpr (kRotated)
      return true;
    else
      return Form::kInfo.members == 2;
  }
  __device__ void operator()(const Place& p) const {
    const int j = p.part * V;
    float* out = dangle + (p.b * N + p.n) * half + j;
    Floats<V> sum = load_part<V>(out), c{}, s{};
    if constexpr (!kRotated) {
      c = load_part<V>(rows.cos_at(p) + j);
      s = load_part<V>(rows.sin_at(p) + j);
    }
    for (int h = 0; h < H; ++h) {
      const Place at{p.b, p.n, h, p.part};
      const Floats<V> da = load_part<V>(dy.at(at) + j), db = load_part<V>(dy.at(at) + j + half),
                      a = load_part<V>(x.at(at) + j);
      Floats<V> b = a;
      if constexpr (pairs()) b = load_part<V>(x.at(at) + j + half);
      for (int i = 0; i < V; ++i) {
        if constexpr (kRotated) {
          sum.x[i] += a.x[i] * db.x[i] - b.x[i] * da.x[i];
        } else {  // q_eff is linear in (c, s), whose derivative by the angle is (-s, c)
          const ops::Plane<float> d = Form::query(a.x[i], b.x[i], -s.x[i], c.x[i]);
          sum.x[i] += d.x * da.x[i] + d.y * db.x[i];
        }
      }
    }
    store_part<V>(out, sum);
  }
};

template <typename Form>
void backward_by(Context& cx, const ops::RopeAngleBackward& a) {
  const int64_t half = a.rows.cos.size(2), N = a.x.size(1);
  ops::with_float_type(a.x.dtype, [&]<typename T>(T) {
    with_parts({half}, {a.rows.cos, a.rows.sin, a.x, a.dy, a.dangle}, [&]<int V>(std::integral_constant<int, V>) {
      each_part(cx, {a.x.size(0), N, 1, half / V},
                AnglesBack<Form, T, V>{.rows = AngleRows(a.rows),
                                       .x = heads_of<T>(a.x),
                                       .dy = heads_of<T>(a.dy),
                                       .dangle = a.dangle.as<float>(),
                                       .N = N,
                                       .H = static_cast<int>(a.x.size(2)),
                                       .half = static_cast<int>(half)});
    });
  });
}

void backward(Context& cx, const ops::RopeAngleBackward& a) {
  if (a.kind == ops::AngleOf::kRotated) return backward_by<Rotated>(cx, a);
  ops::with_form(a.collinear.kind, [&]<typename Form>(Form) { backward_by<Form>(cx, a); });
}

}  // namespace

const ops::RopeAngleImpl rope_angle_row{.name = "cuda", .device = DeviceKind::kCuda, .run = {backward}};

}  // namespace coca::cuda

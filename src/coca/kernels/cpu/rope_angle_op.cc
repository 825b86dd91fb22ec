// Plain loops, parallel over tokens: beside the products of a layer this is one pass over q and k.
// SPDX-License-Identifier: Apache-2.0
#include "coca/base/parallel.h"
#include "coca/kernels/args/blocks.h"
#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cpu/rows.h"
#include "coca/kernels/ref/rope_angle.h"

namespace coca::cpu {

namespace {

template <typename T>
void add_as(const ops::RopeAngleBackward& p) {
  const auto x = p.x.view<T, 4>(), dy = p.dy.view<T, 4>();
  const auto cos = p.rows.cos.view<float, 3>(), sin = p.rows.sin.view<float, 3>();
  const auto dangle = p.dangle.view<float, 3>();
  const int64_t N = p.x.size(1), H = p.x.size(2), half = p.rows.cos.size(2);
  parallel_blocks(p.x.size(0) * N, ops::row_grain(p.x), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / N, n = i % N, row = cos.size(0) == 1 ? 0 : b;
      float* out = dangle.ptr(b, n);
      for (int64_t h = 0; h < H; ++h) {
        if (p.kind == ops::AngleOf::kRotated)
          ref::rotated_head_angles(x.ptr(b, n, h), dy.ptr(b, n, h), half, out);
        else
          ref::slack_head_angles(p.kind == ops::AngleOf::kTied ? 2 : 0, x.ptr(b, n, h), dy.ptr(b, n, h),
                                 cos.ptr(row, n), sin.ptr(row, n), half, out);
      }
    }
  });
}

void backward(Context&, const ops::RopeAngleBackward& a) {
  ops::with_float_type(a.x.dtype, [&](auto zero) { add_as<decltype(zero)>(a); });
}

}  // namespace

const ops::RopeAngleImpl rope_angle_row{.name = "cpu", .run = {backward}};

}  // namespace coca::cpu

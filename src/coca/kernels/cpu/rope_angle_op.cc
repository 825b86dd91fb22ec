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
  const auto over_heads = [&](const auto& add) {
    parallel_blocks(p.x.size(0) * N, ops::row_grain(p.dy), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        for (int64_t h = 0; h < H; ++h) add(i / N, i % N, h);
    });
  };
  if (p.kind == ops::AngleOf::kRotated)
    return over_heads([&](int64_t b, int64_t n, int64_t h) {
      ref::rotated_head_angles(x.ptr(b, n, h), dy.ptr(b, n, h), half, dangle.ptr(b, n));
    });
  ops::with_form(p.collinear.kind, [&](auto form) {
    over_heads([&](int64_t b, int64_t n, int64_t h) {
      const int64_t row = cos.size(0) == 1 ? 0 : b;
      ref::query_head_angles(form, x.ptr(b, n, h), dy.ptr(b, n, h), cos.ptr(row, n), sin.ptr(row, n), half,
                             dangle.ptr(b, n));
    });
  });
}

void backward(Context&, const ops::RopeAngleBackward& a) {
  ops::with_float_type(a.x.dtype, [&](auto zero) { add_as<decltype(zero)>(a); });
}

}  // namespace

const ops::RopeAngleImpl rope_angle_row{.name = "cpu", .run = {backward}};

}  // namespace coca::cpu

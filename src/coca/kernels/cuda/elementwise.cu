// Cast and residual: one pass over memory each.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cuda/rows.h"
#include "coca/kernels/cuda/simt.h"

namespace coca::cuda {

namespace {

template <typename X, typename Y>
__global__ void cast_kernel(const X* x, Y* y, int64_t n) {
  for (int64_t i = grid_start(); i < n; i += grid_stride()) store(y + i, load(x + i));
}

template <typename B>
__global__ void residual_kernel(const float* a, const B* b, const B* c, float* y, int64_t n) {
  for (int64_t i = grid_start(); i < n; i += grid_stride())
    y[i] = c == nullptr ? a[i] + load(b + i) : (a[i] + load(b + i)) + load(c + i);
}

void cast(Context& cx, const ops::Cast& a) {
  const int64_t n = a.x.numel();
  const Grid grid{.blocks = blocks_for(n), .threads = kThreads};
  if (a.x.dtype == DType::kBF16)
    launch(cx, grid, cast_kernel<BF16, float>, a.x.as<BF16>(), a.y.as<float>(), n);
  else
    launch(cx, grid, cast_kernel<float, BF16>, a.x.as<float>(), a.y.as<BF16>(), n);
}

void residual(Context& cx, const ops::ResidualForward& a) {
  ops::with_float_type(a.b.dtype, [&]<typename T>(T) {
    const int64_t n = a.a.numel();
    launch(cx, {.blocks = blocks_for(n), .threads = kThreads}, residual_kernel<T>, a.a.as<float>(), a.b.as<T>(),
           a.c.empty() ? nullptr : a.c.as<T>(), a.y.as<float>(), n);
  });
}

}  // namespace

const ops::CastImpl cast_row{.name = "cuda", .device = DeviceKind::kCuda, .run = {cast}};
const ops::ResidualImpl residual_row{.name = "cuda", .device = DeviceKind::kCuda, .run = {residual}};

}  // namespace coca::cuda

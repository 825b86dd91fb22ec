// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/lora.h"

#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cuda/rows.h"
#include "coca/kernels/cuda/simt.h"

namespace coca::cuda {

namespace {

template <typename From, typename To>
__global__ void dropout_kernel(const From* from, To* to, int64_t n, uint64_t key, uint32_t threshold, float kept,
                               bool add) {
  for (int64_t i = grid_start(); i < n; i += grid_stride()) {
    const float value = ops::dropout_keeps(key, i, threshold) ? kept * load(from + i) : 0.0f;
    store(to + i, add ? load(to + i) + value : value);
  }
}

template <typename T>
__global__ void multiply_kernel(T* x, int64_t n, float factor) {
  for (int64_t i = grid_start(); i < n; i += grid_stride()) store(x + i, factor * load(x + i));
}

void dropout(Context& cx, const ops::LoraDropout& a) {
  const int64_t n = a.x.numel();
  const auto rate = static_cast<double>(a.dropout.rate);
  ops::with_float_type(a.x.dtype, [&]<typename X>(X) {
    ops::with_float_type(a.y.dtype, [&]<typename Y>(Y) {
      launch(cx, {.blocks = blocks_for(n), .threads = kThreads}, dropout_kernel<X, Y>, a.x.as<X>(), a.y.as<Y>(), n,
             a.dropout.key, ops::dropout_threshold(rate), static_cast<float>(1.0 / (1.0 - rate)),
             a.y_write == ops::Write::kAccumulate);
    });
  });
}

void multiply(Context& cx, MutTensorRef x, float factor) {
  ops::with_float_type(x.dtype, [&]<typename T>(T) {
    launch(cx, {.blocks = blocks_for(x.numel()), .threads = kThreads}, multiply_kernel<T>, x.as<T>(), x.numel(),
           factor);
  });
}

}  // namespace

const ops::LoraImpl lora_row{.name = "cuda", .device = DeviceKind::kCuda, .run = {dropout, multiply}};

}  // namespace coca::cuda

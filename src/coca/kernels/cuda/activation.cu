// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/activation.h"

#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cuda/rows.h"
#include "coca/kernels/cuda/simt.h"

namespace coca::cuda {

namespace {

constexpr float kRootHalf = 0.70710678118654752f, kTwoOverRootPi = 1.12837916709551257f;
// Hendrycks and Gimpel's tanh form: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
constexpr float kRootTwoOverPi = 0.79788456080286536f, kCubic = 0.044715f;

template <bool kTanh>
__device__ float gelu(float x) {
  if (!kTanh) return 0.5f * x * (1.0f + erff(x * kRootHalf));
  return 0.5f * x * (1.0f + tanhf(kRootTwoOverPi * (x + kCubic * x * x * x)));
}
template <bool kTanh>
__device__ float gelu_slope(float x) {
  if (!kTanh) return 0.5f * (1.0f + erff(x * kRootHalf)) + 0.5f * kTwoOverRootPi * kRootHalf * x * expf(-0.5f * x * x);
  const float t = tanhf(kRootTwoOverPi * (x + kCubic * x * x * x));
  const float du = kRootTwoOverPi * (1.0f + 3.0f * kCubic * x * x);
  // With t = 1, x may be so large that du is infinite.
  const float slope = t * t == 1.0f ? 0.0f : (1.0f - t * t) * du;
  return 0.5f * (1.0f + t) + 0.5f * x * slope;
}

template <typename T, bool kTanh>
__global__ void gelu_forward_kernel(const T* x, T* y, int64_t n) {
  for (int64_t i = grid_start(); i < n; i += grid_stride()) store(y + i, gelu<kTanh>(load(x + i)));
}
template <typename T, bool kTanh>
__global__ void gelu_backward_kernel(const T* x, const T* dy, T* dx, int64_t n) {
  for (int64_t i = grid_start(); i < n; i += grid_stride())
    store(dx + i, load(dy + i) * gelu_slope<kTanh>(load(x + i)));
}

template <typename T>
__global__ void swiglu_forward_kernel(const T* gate, const T* up, T* y, int64_t n) {
  for (int64_t i = grid_start(); i < n; i += grid_stride()) {
    const float g = load(gate + i);
    store(y + i, g / (1.0f + expf(-g)) * load(up + i));
  }
}
// d silu(g) = s (1 + g (1 - s)), s = sigmoid(g).
template <typename T>
__global__ void swiglu_backward_kernel(const T* gate, const T* up, const T* dy, T* dgate, T* dup, int64_t n) {
  for (int64_t i = grid_start(); i < n; i += grid_stride()) {
    const float g = load(gate + i), u = load(up + i), d = load(dy + i), s = 1.0f / (1.0f + expf(-g));
    store(dup + i, d * g * s);
    store(dgate + i, d * u * s * (1.0f + g * (1.0f - s)));
  }
}

void gelu_forward(Context& cx, const ops::GeluForward& a) {
  ops::with_float_type(a.x.dtype, [&]<typename T>(T) {
    const int64_t n = a.x.numel();
    const auto kernel = a.kind == ops::Gelu::kTanh ? gelu_forward_kernel<T, true> : gelu_forward_kernel<T, false>;
    launch(cx, {.blocks = blocks_for(n), .threads = kThreads}, kernel, a.x.as<T>(), a.y.as<T>(), n);
  });
}

void gelu_backward(Context& cx, const ops::GeluBackward& a) {
  ops::with_float_type(a.x.dtype, [&]<typename T>(T) {
    const int64_t n = a.x.numel();
    const auto kernel = a.kind == ops::Gelu::kTanh ? gelu_backward_kernel<T, true> : gelu_backward_kernel<T, false>;
    launch(cx, {.blocks = blocks_for(n), .threads = kThreads}, kernel, a.x.as<T>(), a.dy.as<T>(), a.dx.as<T>(), n);
  });
}

void swiglu_forward(Context& cx, const ops::SwiGluForward& a) {
  ops::with_float_type(a.gate.dtype, [&]<typename T>(T) {
    const int64_t n = a.gate.numel();
    launch(cx, {.blocks = blocks_for(n), .threads = kThreads}, swiglu_forward_kernel<T>, a.gate.as<T>(), a.up.as<T>(),
           a.y.as<T>(), n);
  });
}

void swiglu_backward(Context& cx, const ops::SwiGluBackward& a) {
  ops::with_float_type(a.gate.dtype, [&]<typename T>(T) {
    const int64_t n = a.gate.numel();
    launch(cx, {.blocks = blocks_for(n), .threads = kThreads}, swiglu_backward_kernel<T>, a.gate.as<T>(), a.up.as<T>(),
           a.dy.as<T>(), a.dgate.as<T>(), a.dup.as<T>(), n);
  });
}

}  // namespace

const ops::GeluImpl gelu_row{.name = "cuda", .device = DeviceKind::kCuda, .run = {gelu_forward, gelu_backward}};
const ops::SwiGluImpl swiglu_row{.name = "cuda", .device = DeviceKind::kCuda, .run = {swiglu_forward, swiglu_backward}};

}  // namespace coca::cuda

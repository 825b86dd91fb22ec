// SPDX-License-Identifier: Apache-2.0
#include "coca/base/parallel.h"
#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cpu/activation.h"
#include "coca/kernels/cpu/rows.h"

namespace coca::cpu {

namespace {

constexpr int64_t kGrain = 16384;  // elements a task: tens of microseconds

template <typename T>
void gelu_forward_as(const ops::GeluForward& a) {
  const T* x = a.x.as<T>();
  T* y = a.y.as<T>();
  const bool exact = a.kind == ops::Gelu::kExact;
  parallel_blocks(a.x.numel(), kGrain, [&](int64_t i0, int64_t i1) {
    if (exact)
      gelu_exact_forward(x + i0, y + i0, i1 - i0);
    else
      gelu_tanh_forward(x + i0, y + i0, i1 - i0);
  });
}

template <typename T>
void gelu_backward_as(const ops::GeluBackward& a) {
  const T *x = a.x.as<T>(), *dy = a.dy.as<T>();
  T* dx = a.dx.as<T>();
  const bool exact = a.kind == ops::Gelu::kExact;
  parallel_blocks(a.x.numel(), kGrain, [&](int64_t i0, int64_t i1) {
    if (exact)
      gelu_exact_backward(x + i0, dy + i0, dx + i0, i1 - i0);
    else
      gelu_tanh_backward(x + i0, dy + i0, dx + i0, i1 - i0);
  });
}

template <typename T>
void swiglu_forward_as(const ops::SwiGluForward& a) {
  const T *gate = a.gate.as<T>(), *up = a.up.as<T>();
  T* y = a.y.as<T>();
  parallel_blocks(a.gate.numel(), kGrain,
                  [&](int64_t i0, int64_t i1) { swiglu_forward(gate + i0, up + i0, y + i0, i1 - i0); });
}

template <typename T>
void swiglu_backward_as(const ops::SwiGluBackward& a) {
  const T *gate = a.gate.as<T>(), *up = a.up.as<T>(), *dy = a.dy.as<T>();
  T *dgate = a.dgate.as<T>(), *dup = a.dup.as<T>();
  parallel_blocks(a.gate.numel(), kGrain, [&](int64_t i0, int64_t i1) {
    swiglu_backward(gate + i0, up + i0, dy + i0, dgate + i0, dup + i0, i1 - i0);
  });
}

void gelu_forward_typed(Context&, const ops::GeluForward& a) {
  ops::with_float_type(a.x.dtype, [&](auto zero) { gelu_forward_as<decltype(zero)>(a); });
}

void gelu_backward_typed(Context&, const ops::GeluBackward& a) {
  ops::with_float_type(a.x.dtype, [&](auto zero) { gelu_backward_as<decltype(zero)>(a); });
}

void swiglu_forward_typed(Context&, const ops::SwiGluForward& a) {
  ops::with_float_type(a.gate.dtype, [&](auto zero) { swiglu_forward_as<decltype(zero)>(a); });
}

void swiglu_backward_typed(Context&, const ops::SwiGluBackward& a) {
  ops::with_float_type(a.gate.dtype, [&](auto zero) { swiglu_backward_as<decltype(zero)>(a); });
}

}  // namespace

const ops::GeluImpl gelu_row{.name = "cpu", .run = {gelu_forward_typed, gelu_backward_typed}};
const ops::SwiGluImpl swiglu_row{.name = "cpu", .run = {swiglu_forward_typed, swiglu_backward_typed}};

}  // namespace coca::cpu

// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/activation.h"

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/activation.h"
#include "coca/kernels/ref/activation.h"
#include "coca/ops/check.h"
#include "coca/ops/float_types.h"
#include "coca/ops/impl.h"

namespace coca::ops {

namespace {

constexpr int64_t kGrain = 16384;  // elements a task: tens of microseconds

template <typename T>
void gelu_forward_as(const GeluForward& a) {
  const T* x = a.x.as<T>();
  T* y = a.y.as<T>();
  const bool exact = a.kind == Gelu::kExact;
  parallel_blocks(a.x.numel(), kGrain, [&](int64_t i0, int64_t i1) {
    exact ? cpu::gelu_exact_forward(x + i0, y + i0, i1 - i0) : cpu::gelu_tanh_forward(x + i0, y + i0, i1 - i0);
  });
}

template <typename T>
void gelu_backward_as(const GeluBackward& a) {
  const T *x = a.x.as<T>(), *dy = a.dy.as<T>();
  T* dx = a.dx.as<T>();
  const bool exact = a.kind == Gelu::kExact;
  parallel_blocks(a.x.numel(), kGrain, [&](int64_t i0, int64_t i1) {
    exact ? cpu::gelu_exact_backward(x + i0, dy + i0, dx + i0, i1 - i0)
          : cpu::gelu_tanh_backward(x + i0, dy + i0, dx + i0, i1 - i0);
  });
}

void gelu_forward_ref(const GeluForward& a) {
  const FloatInput x(a.x);
  const FloatOutput y(a.y);
  const auto forward = a.kind == Gelu::kExact ? ref::gelu_exact_forward<float> : ref::gelu_tanh_forward<float>;
  forward(a.x.numel(), x.ref().as<float>(), y.ref().as<float>());
  y.store();
}

void gelu_backward_ref(const GeluBackward& a) {
  const FloatInput x(a.x), dy(a.dy);
  const FloatOutput dx(a.dx);
  const auto backward = a.kind == Gelu::kExact ? ref::gelu_exact_backward<float> : ref::gelu_tanh_backward<float>;
  backward(a.x.numel(), x.ref().as<float>(), dy.ref().as<float>(), dx.ref().as<float>());
  dx.store();
}

template <typename T>
void swiglu_forward_as(const SwiGluForward& a) {
  const T *gate = a.gate.as<T>(), *up = a.up.as<T>();
  T* y = a.y.as<T>();
  parallel_blocks(a.gate.numel(), kGrain,
                  [&](int64_t i0, int64_t i1) { cpu::swiglu_forward(gate + i0, up + i0, y + i0, i1 - i0); });
}

template <typename T>
void swiglu_backward_as(const SwiGluBackward& a) {
  const T *gate = a.gate.as<T>(), *up = a.up.as<T>(), *dy = a.dy.as<T>();
  T *dgate = a.dgate.as<T>(), *dup = a.dup.as<T>();
  parallel_blocks(a.gate.numel(), kGrain, [&](int64_t i0, int64_t i1) {
    cpu::swiglu_backward(gate + i0, up + i0, dy + i0, dgate + i0, dup + i0, i1 - i0);
  });
}

void swiglu_forward_ref(const SwiGluForward& a) {
  const FloatInput gate(a.gate), up(a.up);
  const FloatOutput y(a.y);
  ref::swiglu_forward(a.gate.numel(), gate.ref().as<float>(), up.ref().as<float>(), y.ref().as<float>());
  y.store();
}

void swiglu_backward_ref(const SwiGluBackward& a) {
  const FloatInput gate(a.gate), up(a.up), dy(a.dy);
  const FloatOutput dgate(a.dgate), dup(a.dup);
  ref::swiglu_backward(a.gate.numel(), gate.ref().as<float>(), up.ref().as<float>(), dy.ref().as<float>(),
                       dgate.ref().as<float>(), dup.ref().as<float>());
  dgate.store();
  dup.store();
}

}  // namespace

void gelu_forward(Context& context, const GeluForward& a) {
  check_packed("gelu", "x", a.x, kF32OrBF16);
  check_packed("gelu", "y", a.y, a.x.shape, a.x.dtype);
  if (use_ref(context, "gelu")) return gelu_forward_ref(a);
  with_float_type(a.x.dtype, [&](auto zero) { gelu_forward_as<decltype(zero)>(a); });
}

void gelu_backward(Context& context, const GeluBackward& a) {
  check_packed("gelu", "x", a.x, kF32OrBF16);
  check_packed("gelu", "dy", a.dy, a.x.shape, a.x.dtype);
  check_packed("gelu", "dx", a.dx, a.x.shape, a.x.dtype);
  if (use_ref(context, "gelu")) return gelu_backward_ref(a);
  with_float_type(a.x.dtype, [&](auto zero) { gelu_backward_as<decltype(zero)>(a); });
}

void swiglu_forward(Context& context, const SwiGluForward& a) {
  check_packed("swiglu", "gate", a.gate, kF32OrBF16);
  check_packed("swiglu", "up", a.up, a.gate.shape, a.gate.dtype);
  check_packed("swiglu", "y", a.y, a.gate.shape, a.gate.dtype);
  if (use_ref(context, "swiglu")) return swiglu_forward_ref(a);
  with_float_type(a.gate.dtype, [&](auto zero) { swiglu_forward_as<decltype(zero)>(a); });
}

void swiglu_backward(Context& context, const SwiGluBackward& a) {
  check_packed("swiglu", "gate", a.gate, kF32OrBF16);
  check_packed("swiglu", "up", a.up, a.gate.shape, a.gate.dtype);
  check_packed("swiglu", "dy", a.dy, a.gate.shape, a.gate.dtype);
  check_packed("swiglu", "dgate", a.dgate, a.gate.shape, a.gate.dtype);
  check_packed("swiglu", "dup", a.dup, a.gate.shape, a.gate.dtype);
  if (use_ref(context, "swiglu")) return swiglu_backward_ref(a);
  with_float_type(a.gate.dtype, [&](auto zero) { swiglu_backward_as<decltype(zero)>(a); });
}

}  // namespace coca::ops

// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/ref/activation.h"
#include "coca/kernels/ref/rows.h"
#include "coca/tensor/float_copies.h"

namespace coca::ref {

namespace {

void gelu_forward_f32(Context&, const ops::GeluForward& a) {
  const FloatInput x(a.x);
  const FloatOutput y(a.y);
  const auto forward = a.kind == ops::Gelu::kExact ? gelu_exact_forward<float> : gelu_tanh_forward<float>;
  forward(a.x.numel(), x.ref().as<float>(), y.ref().as<float>());
  y.store();
}

void gelu_backward_f32(Context&, const ops::GeluBackward& a) {
  const FloatInput x(a.x), dy(a.dy);
  const FloatOutput dx(a.dx);
  const auto backward = a.kind == ops::Gelu::kExact ? gelu_exact_backward<float> : gelu_tanh_backward<float>;
  backward(a.x.numel(), x.ref().as<float>(), dy.ref().as<float>(), dx.ref().as<float>());
  dx.store();
}

void swiglu_forward_f32(Context&, const ops::SwiGluForward& a) {
  const FloatInput gate(a.gate), up(a.up);
  const FloatOutput y(a.y);
  swiglu_forward(a.gate.numel(), gate.ref().as<float>(), up.ref().as<float>(), y.ref().as<float>());
  y.store();
}

void swiglu_backward_f32(Context&, const ops::SwiGluBackward& a) {
  const FloatInput gate(a.gate), up(a.up), dy(a.dy);
  const FloatOutput dgate(a.dgate), dup(a.dup);
  swiglu_backward(a.gate.numel(), gate.ref().as<float>(), up.ref().as<float>(), dy.ref().as<float>(),
                  dgate.ref().as<float>(), dup.ref().as<float>());
  dgate.store();
  dup.store();
}

}  // namespace

const ops::GeluImpl gelu_row{.name = "ref", .run = {gelu_forward_f32, gelu_backward_f32}};
const ops::SwiGluImpl swiglu_row{.name = "ref", .run = {swiglu_forward_f32, swiglu_backward_f32}};

}  // namespace coca::ref

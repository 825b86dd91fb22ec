// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/activation.h"

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/activation.h"
#include "coca/kernels/ref/activation.h"
#include "coca/ops/check.h"
#include "coca/ops/impl.h"

namespace coca::ops {

namespace {

constexpr int64_t kGrain = 16384;  // elements a task: tens of microseconds

}  // namespace

void gelu_forward(Context& context, const GeluForward& a) {
  check_packed("gelu", "x", a.x);
  check_packed("gelu", "y", a.y, a.x.shape);
  const int64_t n = a.x.numel();
  const float* x = a.x.as<float>();
  float* y = a.y.as<float>();
  const bool exact = a.kind == Gelu::kExact;
  if (use_ref(context, "gelu", "cpu"))
    return exact ? ref::gelu_exact_forward(n, x, y) : ref::gelu_tanh_forward(n, x, y);
  const auto kernel = exact ? cpu::gelu_exact_forward : cpu::gelu_tanh_forward;
  parallel_blocks(n, kGrain, [&](int64_t i0, int64_t i1) { kernel(x + i0, y + i0, i1 - i0); });
}

void gelu_backward(Context& context, const GeluBackward& a) {
  check_packed("gelu", "x", a.x);
  check_packed("gelu", "dy", a.dy, a.x.shape);
  check_packed("gelu", "dx", a.dx, a.x.shape);
  const int64_t n = a.x.numel();
  const float *x = a.x.as<float>(), *dy = a.dy.as<float>();
  float* dx = a.dx.as<float>();
  const bool exact = a.kind == Gelu::kExact;
  if (use_ref(context, "gelu", "cpu"))
    return exact ? ref::gelu_exact_backward(n, x, dy, dx) : ref::gelu_tanh_backward(n, x, dy, dx);
  const auto kernel = exact ? cpu::gelu_exact_backward : cpu::gelu_tanh_backward;
  parallel_blocks(n, kGrain, [&](int64_t i0, int64_t i1) { kernel(x + i0, dy + i0, dx + i0, i1 - i0); });
}

void swiglu_forward(Context& context, const SwiGluForward& a) {
  check_packed("swiglu", "gate", a.gate);
  check_packed("swiglu", "up", a.up, a.gate.shape);
  check_packed("swiglu", "y", a.y, a.gate.shape);
  const int64_t n = a.gate.numel();
  const float *gate = a.gate.as<float>(), *up = a.up.as<float>();
  float* y = a.y.as<float>();
  if (use_ref(context, "swiglu", "cpu")) return ref::swiglu_forward(n, gate, up, y);
  parallel_blocks(n, kGrain,
                  [&](int64_t i0, int64_t i1) { cpu::swiglu_forward(gate + i0, up + i0, y + i0, i1 - i0); });
}

void swiglu_backward(Context& context, const SwiGluBackward& a) {
  check_packed("swiglu", "gate", a.gate);
  check_packed("swiglu", "up", a.up, a.gate.shape);
  check_packed("swiglu", "dy", a.dy, a.gate.shape);
  check_packed("swiglu", "dgate", a.dgate, a.gate.shape);
  check_packed("swiglu", "dup", a.dup, a.gate.shape);
  const int64_t n = a.gate.numel();
  const float *gate = a.gate.as<float>(), *up = a.up.as<float>(), *dy = a.dy.as<float>();
  float *dgate = a.dgate.as<float>(), *dup = a.dup.as<float>();
  if (use_ref(context, "swiglu", "cpu")) return ref::swiglu_backward(n, gate, up, dy, dgate, dup);
  parallel_blocks(n, kGrain, [&](int64_t i0, int64_t i1) {
    cpu::swiglu_backward(gate + i0, up + i0, dy + i0, dgate + i0, dup + i0, i1 - i0);
  });
}

}  // namespace coca::ops

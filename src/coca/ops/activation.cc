// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/activation.h"

#include "coca/ops/check.h"
#include "coca/ops/run.h"

namespace coca::ops {

void gelu_forward(Context& context, const GeluForward& a) {
  const Site at("gelu", context);
  check_packed(at, "x", a.x, kF32OrBF16);
  check_packed(at, "y", a.y, a.x.shape, a.x.dtype);
  run<GeluImpl>(context, a.x.dtype, &GeluFunctions::forward, a);
}

void gelu_backward(Context& context, const GeluBackward& a) {
  const Site at("gelu", context);
  check_packed(at, "x", a.x, kF32OrBF16);
  check_packed(at, "dy", a.dy, a.x.shape, a.x.dtype);
  check_packed(at, "dx", a.dx, a.x.shape, a.x.dtype);
  run<GeluImpl>(context, a.x.dtype, &GeluFunctions::backward, a);
}

void swiglu_forward(Context& context, const SwiGluForward& a) {
  const Site at("swiglu", context);
  check_packed(at, "gate", a.gate, kF32OrBF16);
  check_packed(at, "up", a.up, a.gate.shape, a.gate.dtype);
  check_packed(at, "y", a.y, a.gate.shape, a.gate.dtype);
  run<SwiGluImpl>(context, a.gate.dtype, &SwiGluFunctions::forward, a);
}

void swiglu_backward(Context& context, const SwiGluBackward& a) {
  const Site at("swiglu", context);
  check_packed(at, "gate", a.gate, kF32OrBF16);
  check_packed(at, "up", a.up, a.gate.shape, a.gate.dtype);
  check_packed(at, "dy", a.dy, a.gate.shape, a.gate.dtype);
  check_packed(at, "dgate", a.dgate, a.gate.shape, a.gate.dtype);
  check_packed(at, "dup", a.dup, a.gate.shape, a.gate.dtype);
  run<SwiGluImpl>(context, a.gate.dtype, &SwiGluFunctions::backward, a);
}

}  // namespace coca::ops

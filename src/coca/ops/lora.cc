// Three products of linear.h and two element-wise passes; scratch of the Context holds dropout(x) and tensors with R
// columns.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/lora.h"

#include "coca/ops/check.h"
#include "coca/ops/linear.h"
#include "coca/ops/run.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "lora";

void check(const Context& context, TensorRef x, TensorRef a, TensorRef b, TensorRef outer, std::string_view outer_name,
           const Dropout& dropout) {
  const Site at(kOp, context);
  check_rank2(at, "x", x);
  check_packed(at, "x", x, kF32OrBF16);
  check_rank2(at, "a", a);
  check_rank2(at, "b", b);
  check_rank2(at, outer_name, outer);
  check_packed(at, "a", a, {a.size(0), x.size(1)}, x.dtype);
  check_packed(at, "b", b, {outer.size(1), a.size(0)}, x.dtype);
  COCA_CHECK(outer.size(0) == x.size(0), "[{}] x {} and {} {}: M differs ({} and {})", kOp, x.shape.text(), outer_name,
             outer.shape.text(), x.size(0), outer.size(0));
  COCA_CHECK(dropout.rate >= 0 && dropout.rate < 1, "[{}] dropout is {}; expected 0 or more and less than 1", kOp,
             dropout.rate);
}

void multiply(Context& cx, MutTensorRef t, float factor) {
  if (factor != 1.0f) run<LoraImpl>(cx, t.dtype, &LoraFunctions::multiply, t, factor);
}

// Parts of one block of the caller's scratch.
class Scratch {
 public:
  static size_t bytes(const Dims& shape, DType type) {
    return (static_cast<size_t>(shape.product()) * dtype_size(type) + 63) / 64 * 64;
  }
  Scratch(Context& cx, size_t total)
      : next_(static_cast<std::byte*>(cx.scratch(total, ScratchUser::kLora))), device_(cx.device()) {}
  MutTensorRef take(const Dims& shape, DType type) {
    std::byte* at = next_;
    next_ += bytes(shape, type);
    return {at, type, shape, device_};
  }

 private:
  std::byte* next_;
  Device device_;
};

// dropout(x): x itself if nothing is dropped.
TensorRef dropped(Context& cx, const Dropout& dropout, TensorRef x, Scratch& scratch) {
  if (dropout.rate == 0.0f) return x;
  const MutTensorRef out = scratch.take(x.shape, x.dtype);
  run<LoraImpl>(cx, x.dtype, &LoraFunctions::dropout, LoraDropout{.dropout = dropout, .x = x, .y = out});
  return out;
}

// scale * x a^T [M, R]
MutTensorRef inner(Context& cx, TensorRef x, TensorRef a, float scale, Scratch& scratch) {
  const MutTensorRef h = scratch.take({x.size(0), a.size(0)}, x.dtype);
  linear_forward(cx, {.x = x, .w = a, .y = h});
  multiply(cx, h, scale);
  return h;
}

}  // namespace

void lora_forward(Context& cx, const LoraForward& p) {
  check(cx, p.x, p.a, p.b, p.y, "y", p.dropout);
  Scratch scratch(cx, Scratch::bytes(p.x.shape, p.x.dtype) + Scratch::bytes({p.x.size(0), p.a.size(0)}, p.x.dtype));
  const MutTensorRef h = inner(cx, dropped(cx, p.dropout, p.x, scratch), p.a, p.scale, scratch);
  linear_forward(cx, {.x = h, .w = p.b, .y = p.y, .y_write = Write::kAccumulate});
}

void lora_backward(Context& cx, const LoraBackward& p) {
  check(cx, p.x, p.a, p.b, p.dy, "dy", p.dropout);
  const Dims narrow{p.x.size(0), p.a.size(0)};
  Scratch scratch(cx, Scratch::bytes(p.x.shape, p.x.dtype) + 2 * Scratch::bytes(narrow, p.x.dtype) +
                          Scratch::bytes(p.x.shape, DType::kF32));
  const TensorRef x = dropped(cx, p.dropout, p.x, scratch);
  const MutTensorRef h = inner(cx, x, p.a, p.scale, scratch), dh = scratch.take(narrow, p.x.dtype);
  linear_backward(cx, {.x = h, .w = p.b, .dy = p.dy, .dx = dh, .dw = p.db});
  multiply(cx, dh, p.scale);
  const bool masked = p.dropout.rate > 0 && !p.dx.empty();
  const MutTensorRef dx = masked ? scratch.take(p.x.shape, DType::kF32) : p.dx;
  linear_backward(
      cx, {.x = x, .w = p.a, .dy = dh, .dx = dx, .dw = p.da, .dx_write = masked ? Write::kAssign : Write::kAccumulate});
  if (masked)
    run<LoraImpl>(cx, p.x.dtype, &LoraFunctions::dropout,
                  LoraDropout{.dropout = p.dropout, .x = dx, .y = p.dx, .y_write = Write::kAccumulate});
}

}  // namespace coca::ops

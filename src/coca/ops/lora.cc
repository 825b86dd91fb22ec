// Three products of linear.h and two element-wise passes; scratch of the Context holds dropout(x) and what has R
// columns.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/lora.h"

#include "coca/base/parallel.h"
#include "coca/kernels/ref/lora.h"
#include "coca/ops/check.h"
#include "coca/ops/float_types.h"
#include "coca/ops/linear.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "lora";
constexpr int64_t kGrain = 16384;

void check(TensorRef x, TensorRef a, TensorRef b, TensorRef outer, std::string_view outer_name,
           const Dropout& dropout) {
  check_rank2(kOp, "x", x);
  check_packed(kOp, "x", x, kF32OrBF16);
  check_rank2(kOp, "a", a);
  check_rank2(kOp, "b", b);
  check_rank2(kOp, outer_name, outer);
  check_packed(kOp, "a", a, {a.size(0), x.size(1)}, x.dtype);
  check_packed(kOp, "b", b, {outer.size(1), a.size(0)}, x.dtype);
  COCA_CHECK(outer.size(0) == x.size(0), "[{}] x {} and {} {}: M differs ({} and {})", kOp, x.shape.text(), outer_name,
             outer.shape.text(), x.size(0), outer.size(0));
  COCA_CHECK(dropout.rate >= 0 && dropout.rate < 1, "[{}] dropout is {}; expected 0 or more and less than 1", kOp,
             dropout.rate);
}

// to[i] = (or +=) from[i] under the mask.
template <typename From, typename To>
void mask_as(const Dropout& dropout, Write write, const From* from, To* to, int64_t n) {
  const uint32_t threshold = ref::dropout_threshold(static_cast<double>(dropout.rate));
  const float kept = static_cast<float>(1.0 / (1.0 - static_cast<double>(dropout.rate)));
  parallel_blocks(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float value = ref::dropout_keeps(dropout.key, i, threshold) ? kept * static_cast<float>(from[i]) : 0.0f;
      to[i] = static_cast<To>(write == Write::kAssign ? value : static_cast<float>(to[i]) + value);
    }
  });
}

void mask(const Dropout& dropout, Write write, TensorRef from, MutTensorRef to) {
  with_float_type(from.dtype, [&](auto f) {
    with_float_type(
        to.dtype, [&](auto t) { mask_as(dropout, write, from.as<decltype(f)>(), to.as<decltype(t)>(), from.numel()); });
  });
}

void multiply(MutTensorRef t, float factor) {
  if (factor == 1.0f) return;
  with_float_type(t.dtype, [&](auto zero) {
    auto* values = t.as<decltype(zero)>();
    for (int64_t i = 0; i < t.numel(); ++i)
      values[i] = static_cast<decltype(zero)>(factor * static_cast<float>(values[i]));
  });
}

// Parts of one block of the caller's scratch.
class Scratch {
 public:
  static size_t bytes(const Dims& shape, DType type) {
    return (static_cast<size_t>(shape.product()) * dtype_size(type) + 63) / 64 * 64;
  }
  Scratch(Context& cx, size_t total) : next_(static_cast<std::byte*>(cx.scratch(total, ScratchUser::kCaller))) {}
  MutTensorRef take(const Dims& shape, DType type) {
    std::byte* at = next_;
    next_ += bytes(shape, type);
    return {at, type, shape};
  }

 private:
  std::byte* next_;
};

// dropout(x): x itself when all stay.
TensorRef dropped(const Dropout& dropout, TensorRef x, Scratch& scratch) {
  if (dropout.rate == 0.0f) return x;
  const MutTensorRef out = scratch.take(x.shape, x.dtype);
  mask(dropout, Write::kAssign, x, out);
  return out;
}

// scale * x a^T [M, R]
MutTensorRef inner(Context& cx, TensorRef x, TensorRef a, float scale, Scratch& scratch) {
  const MutTensorRef h = scratch.take({x.size(0), a.size(0)}, x.dtype);
  linear_forward(cx, {.x = x, .w = a, .y = h});
  multiply(h, scale);
  return h;
}

}  // namespace

void lora_forward(Context& cx, const LoraForward& p) {
  check(p.x, p.a, p.b, p.y, "y", p.dropout);
  Scratch scratch(cx, Scratch::bytes(p.x.shape, p.x.dtype) + Scratch::bytes({p.x.size(0), p.a.size(0)}, p.x.dtype));
  const MutTensorRef h = inner(cx, dropped(p.dropout, p.x, scratch), p.a, p.scale, scratch);
  linear_forward(cx, {.x = h, .w = p.b, .y = p.y, .y_write = Write::kAccumulate});
}

void lora_backward(Context& cx, const LoraBackward& p) {
  check(p.x, p.a, p.b, p.dy, "dy", p.dropout);
  const Dims narrow{p.x.size(0), p.a.size(0)};
  Scratch scratch(cx, Scratch::bytes(p.x.shape, p.x.dtype) + 2 * Scratch::bytes(narrow, p.x.dtype) +
                          Scratch::bytes(p.x.shape, DType::kF32));
  const TensorRef x = dropped(p.dropout, p.x, scratch);
  const MutTensorRef h = inner(cx, x, p.a, p.scale, scratch), dh = scratch.take(narrow, p.x.dtype);
  linear_backward(cx, {.x = h, .w = p.b, .dy = p.dy, .dx = dh, .dw = p.db});
  multiply(dh, p.scale);
  const bool masked = p.dropout.rate > 0 && !p.dx.empty();
  const MutTensorRef dx = masked ? scratch.take(p.x.shape, DType::kF32) : p.dx;
  linear_backward(
      cx, {.x = x, .w = p.a, .dy = dh, .dx = dx, .dw = p.da, .dx_write = masked ? Write::kAssign : Write::kAccumulate});
  if (masked) mask(p.dropout, Write::kAccumulate, dx, p.dx);
}

}  // namespace coca::ops

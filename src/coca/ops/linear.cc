// Checks, the choice of implementation, and the bias gradient; the products are in linear_product.cc.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/linear.h"

#include <algorithm>
#include <optional>

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/linear.h"
#include "coca/kernels/ref/linear.h"
#include "coca/ops/check.h"
#include "coca/ops/float_types.h"
#include "coca/ops/impl.h"
#include "coca/ops/linear_product.h"

namespace coca::ops {

namespace {

using onednn::Trans;

constexpr std::string_view kOp = "linear";

// [rows, cols] with an innermost stride of 1 and rows that do not overlap.
void check_matrix(std::string_view name, TensorRef t, std::span<const DType> types = kF32OrBF16) {
  check_rank2(kOp, name, t);
  check_dtype(kOp, name, t, types);
  COCA_CHECK((t.size(1) <= 1 || t.stride(1) == 1) && (t.size(0) <= 1 || t.stride(0) >= t.size(1)),
             "[{}] {} {} has strides {}; rows must not overlap and their elements must be adjacent", kOp, name,
             t.shape.text(), t.strides.text());
}

void check_extent(std::string_view a, TensorRef ta, std::string_view b, TensorRef tb, char letter, int dim_a,
                  int dim_b) {
  COCA_CHECK(ta.size(dim_a) == tb.size(dim_b), "[{}] {} {} and {} {}: {} differs ({} and {})", kOp, a, ta.shape.text(),
             b, tb.shape.text(), letter, ta.size(dim_a), tb.size(dim_b));
}

void check_vector(std::string_view name, TensorRef t, int64_t N) {
  check_packed(kOp, name, t, {N});
}

int64_t leading(TensorRef t) {
  return t.size(0) <= 1 ? std::max<int64_t>(1, t.size(1)) : t.stride(0);
}

// db[n] += sum of dy[:, n]: partial sums of fixed blocks of rows, added in order.
void bias_gradient(Context& context, TensorRef dy, MutTensorRef db) {
  const int64_t M = dy.size(0), N = dy.size(1), block_rows = reduction_rows(M), ld = leading(dy);
  const int64_t blocks = (M + block_rows - 1) / block_rows;
  float* partial = context.scratch_tensor({std::max<int64_t>(1, blocks), N}).as<float>();
  with_float_type(dy.dtype, [&](auto zero) {
    const auto* from = dy.as<decltype(zero)>();
    parallel_blocks(M, block_rows, [&](int64_t m0, int64_t m1) {
      float* sums = partial + m0 / block_rows * N;
      std::fill_n(sums, N, 0.0f);
      cpu::add_column_sums(from + m0 * ld, ld, m1 - m0, N, sums);
    });
  });
  float* to = db.as<float>();
  parallel_blocks(N, 4096,
                  [&](int64_t n0, int64_t n1) { cpu::add_column_sums(partial + n0, N, blocks, n1 - n0, to + n0); });
}

template <typename Ref>
void clear_rows(const Ref& t) {
  for (int64_t m = 0; m < t.size(0); ++m) std::fill_n(t.template as<float>() + m * t.stride(0), t.size(1), 0.0f);
}

void forward_ref(const LinearForward& a) {
  const FloatInput x(a.x), w(a.w);
  const FloatOutput y(a.y);
  if (a.y_write == Write::kAssign) clear_rows(y.ref());
  ref::linear_forward<float>(x.ref().view<float, 2>(), w.ref().view<float, 2>(), a.b.view<float, 1>(),
                             y.ref().view<float, 2>());
  y.store();
}

void backward_ref(const LinearBackward& a) {
  const FloatInput x(a.x), w(a.w), given(a.dy);
  const auto dy = given.ref().view<float, 2>();
  if (!a.dx.empty()) {
    const FloatOutput dx(a.dx);
    if (a.dx_write == Write::kAssign) clear_rows(dx.ref());
    ref::linear_backward_x<float>(w.ref().view<float, 2>(), dy, dx.ref().view<float, 2>());
    dx.store();
  }
  if (!a.dw.empty()) ref::linear_backward_w<float>(x.ref().view<float, 2>(), dy, a.dw.view<float, 2>());
  if (!a.db.empty()) ref::linear_backward_b<float>(dy, a.db.view<float, 1>());
}

// nullopt: the reference.
std::optional<Bf16Product> choose(const Context& context, DType type) {
  const std::string_view impl = running_impl(context, kOp, type);
  if (impl == "ref") return std::nullopt;
  return impl == "widened" ? Bf16Product::kWidened : Bf16Product::kNative;
}

// The product x w^T and its like: operands of one type, rows as they stand.
Product operands(TensorRef a, Trans trans_a, TensorRef b, Trans trans_b, MutTensorRef c, Write write) {
  return {.trans_a = trans_a,
          .trans_b = trans_b,
          .m = trans_a == Trans::kNo ? a.size(0) : a.size(1),
          .n = trans_b == Trans::kNo ? b.size(1) : b.size(0),
          .k = trans_a == Trans::kNo ? a.size(1) : a.size(0),
          .type = a.dtype,
          .a = a.data,
          .lda = leading(a),
          .b = b.data,
          .ldb = leading(b),
          .c_type = c.dtype,
          .c = c.data,
          .ldc = leading(c),
          .write = write};
}

}  // namespace

void linear_forward(Context& context, const LinearForward& a) {
  check_matrix("x", a.x);
  check_matrix("w", a.w, std::span(&a.x.dtype, 1));
  check_matrix("y", a.y);
  check_extent("x", a.x, "w", a.w, 'K', 1, 1);
  check_extent("x", a.x, "y", a.y, 'M', 0, 0);
  check_extent("w", a.w, "y", a.y, 'N', 0, 1);
  if (!a.b.empty()) check_vector("b", a.b, a.w.size(0));
  const auto how = choose(context, a.x.dtype);
  if (!how) return forward_ref(a);
  Product p = operands(a.x, Trans::kNo, a.w, Trans::kYes, a.y, a.y_write);
  p.bias = a.b.as<float>();
  product(context, *how, p);
}

void linear_backward(Context& context, const LinearBackward& a) {
  check_matrix("x", a.x);
  check_matrix("w", a.w, std::span(&a.x.dtype, 1));
  check_matrix("dy", a.dy, std::span(&a.x.dtype, 1));
  check_extent("x", a.x, "w", a.w, 'K', 1, 1);
  check_extent("x", a.x, "dy", a.dy, 'M', 0, 0);
  check_extent("w", a.w, "dy", a.dy, 'N', 0, 1);
  if (!a.dx.empty()) {
    check_matrix("dx", a.dx);
    check_extent("x", a.x, "dx", a.dx, 'M', 0, 0);
    check_extent("x", a.x, "dx", a.dx, 'K', 1, 1);
  }
  if (!a.dw.empty()) {
    check_matrix("dw", a.dw, kF32Only);
    check_extent("w", a.w, "dw", a.dw, 'N', 0, 0);
    check_extent("w", a.w, "dw", a.dw, 'K', 1, 1);
  }
  if (!a.db.empty()) check_vector("db", a.db, a.w.size(0));
  const auto how = choose(context, a.x.dtype);
  if (!how) return backward_ref(a);
  if (!a.dx.empty())
    product(context, *how, operands(a.dy, Trans::kNo, a.w, Trans::kNo, a.dx, a.dx_write));  // dx = dy W
  if (!a.dw.empty() && a.x.size(0) > 0)                                                     // dW += dy^T x
    product(context, *how, operands(a.dy, Trans::kYes, a.x, Trans::kNo, a.dw, Write::kAccumulate));
  if (!a.db.empty()) bias_gradient(context, a.dy, a.db);
}

}  // namespace coca::ops

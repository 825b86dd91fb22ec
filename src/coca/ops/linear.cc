// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/linear.h"

#include "coca/ops/check.h"
#include "coca/ops/run.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "linear";

// [rows, cols] with an innermost stride of 1 and rows that do not overlap.
void check_matrix(const Site& at, std::string_view name, TensorRef t, std::span<const DType> types = kF32OrBF16) {
  check_rank2(at, name, t);
  check_dtype(at, name, t, types);
  COCA_CHECK((t.size(1) <= 1 || t.stride(1) == 1) && (t.size(0) <= 1 || t.stride(0) >= t.size(1)),
             "[{}] {} {} has strides {}; rows must not overlap and their elements must be adjacent", kOp, name,
             t.shape.text(), t.strides.text());
}

void check_extent(std::string_view a, TensorRef ta, std::string_view b, TensorRef tb, char letter, int dim_a,
                  int dim_b) {
  COCA_CHECK(ta.size(dim_a) == tb.size(dim_b), "[{}] {} {} and {} {}: {} differs ({} and {})", kOp, a, ta.shape.text(),
             b, tb.shape.text(), letter, ta.size(dim_a), tb.size(dim_b));
}

}  // namespace

void linear_forward(Context& context, const LinearForward& a) {
  const Site at(kOp, context);
  check_matrix(at, "x", a.x);
  check_matrix(at, "w", a.w, std::span(&a.x.dtype, 1));
  check_matrix(at, "y", a.y);
  check_extent("x", a.x, "w", a.w, 'K', 1, 1);
  check_extent("x", a.x, "y", a.y, 'M', 0, 0);
  check_extent("w", a.w, "y", a.y, 'N', 0, 1);
  if (!a.b.empty()) check_packed(at, "b", a.b, {a.w.size(0)});
  run<LinearImpl>(context, a.x.dtype, &LinearFunctions::forward, a);
}

void linear_backward(Context& context, const LinearBackward& a) {
  const Site at(kOp, context);
  check_matrix(at, "x", a.x);
  check_matrix(at, "w", a.w, std::span(&a.x.dtype, 1));
  check_matrix(at, "dy", a.dy, std::span(&a.x.dtype, 1));
  check_extent("x", a.x, "w", a.w, 'K', 1, 1);
  check_extent("x", a.x, "dy", a.dy, 'M', 0, 0);
  check_extent("w", a.w, "dy", a.dy, 'N', 0, 1);
  if (!a.dx.empty()) {
    check_matrix(at, "dx", a.dx);
    check_extent("x", a.x, "dx", a.dx, 'M', 0, 0);
    check_extent("x", a.x, "dx", a.dx, 'K', 1, 1);
  }
  if (!a.dw.empty()) {
    check_matrix(at, "dw", a.dw, kF32Only);
    check_extent("w", a.w, "dw", a.dw, 'N', 0, 0);
    check_extent("w", a.w, "dw", a.dw, 'K', 1, 1);
  }
  if (!a.db.empty()) check_packed(at, "db", a.db, {a.w.size(0)});
  run<LinearImpl>(context, a.x.dtype, &LinearFunctions::backward, a);
}

}  // namespace coca::ops

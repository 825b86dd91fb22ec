// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/heads.h"

#include "coca/ops/check.h"
#include "coca/ops/run.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "heads";

// to and from have one shape [B, N, H, D].
void check_pair(const Site& at, TensorRef from, TensorRef to) {
  check_given(at, "from", from);
  check_given(at, "to", to);
  COCA_CHECK(from.rank() == 4 && from.shape == to.shape, "[{}] from {} and to {} must have the same shape [B, N, H, D]",
             kOp, from.shape.text(), to.shape.text());
}

}  // namespace

void zero_heads(Context& context, MutTensorRef t) {
  const Site at(kOp, context);
  check_dtype(at, "t", t, kF32OrBF16);
  check_heads(at, "t", t, t.shape);
  run<HeadsImpl>(context, t.dtype, &HeadsFunctions::zero, t);
}

void copy_heads(Context& context, TensorRef from, MutTensorRef to) {
  const Site at(kOp, context);
  check_pair(at, from, to);
  if (from.dtype != to.dtype) {
    check_dtype(at, "from", from, kF32OrBF16);
    check_dtype(at, "to", to, kF32OrBF16);
  }
  run<HeadsImpl>(context, to.dtype, &HeadsFunctions::copy, from, to);
}

void add_heads(Context& context, TensorRef from, MutTensorRef to) {
  const Site at(kOp, context);
  check_pair(at, from, to);
  check_dtype(at, "from", from, kF32OrBF16);
  check_dtype(at, "to", to, kF32OrBF16);
  run<HeadsImpl>(context, to.dtype, &HeadsFunctions::add, from, to);
}

}  // namespace coca::ops

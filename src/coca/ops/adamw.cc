// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/adamw.h"

#include "coca/ops/check.h"
#include "coca/ops/run.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "adamw";

}  // namespace

void adamw_step(Context& context, const AdamWStep& a) {
  const Site at(kOp, context);
  check_packed(at, "grad", a.grad);
  check_packed(at, "param", a.param, a.grad.shape);
  check_packed(at, "m", a.m, a.grad.shape);
  check_packed(at, "v", a.v, a.grad.shape);
  if (!a.copy.empty()) check_packed(at, "copy", a.copy, a.grad.shape, DType::kBF16);
  COCA_CHECK(a.step >= 1, "[{}] step = {} must be at least 1", kOp, a.step);
  COCA_CHECK(a.beta1 >= 0 && a.beta1 < 1 && a.beta2 >= 0 && a.beta2 < 1, "[{}] betas ({}, {}) must be in [0, 1)", kOp,
             a.beta1, a.beta2);
  run<AdamWImpl>(context, a.grad.dtype, &AdamWFunctions::step, a);
}

double sum_of_squares(Context& context, TensorRef x) {
  check_packed(Site("sum_of_squares", context), "x", x);
  return run<AdamWImpl>(context, x.dtype, &AdamWFunctions::sum_of_squares, x);
}

void tile_sums_of_squares(Context& context, TensorRef x, int64_t tile, std::span<double> out) {
  check_packed(Site("sum_of_squares", context), "x", x);
  const int64_t n = x.numel(), tiles = tile > 0 ? (n + tile - 1) / tile : -1;
  COCA_CHECK(static_cast<int64_t>(out.size()) == tiles, "[sum_of_squares] {} sums for {} elements in tiles of {}",
             out.size(), n, tile);
  run<AdamWImpl>(context, x.dtype, &AdamWFunctions::tile_sums_of_squares, x, tile, out);
}

}  // namespace coca::ops

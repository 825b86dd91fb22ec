// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <span>

#include "coca/kernels/ref/adamw.h"
#include "coca/kernels/ref/cast.h"
#include "coca/kernels/ref/rows.h"

namespace coca::ref {

namespace {

void step(Context&, const ops::AdamWStep& a) {
  const int64_t n = a.grad.numel();
  float* param = a.param.as<float>();
  BF16* copy = a.copy.as<BF16>();
  adamw_step<float>({.learning_rate = a.learning_rate,
                     .beta1 = a.beta1,
                     .beta2 = a.beta2,
                     .eps = a.eps,
                     .weight_decay = a.weight_decay,
                     .grad_scale = a.grad_scale,
                     .step = a.step},
                    n, a.grad.as<float>(), param, a.m.as<float>(), a.v.as<float>());
  if (copy) cast(n, param, copy);
}

double whole_sum(Context&, TensorRef x) { return sum_of_squares(x.numel(), x.as<float>()); }

void tile_sums(Context&, TensorRef x, int64_t tile, std::span<double> out) {
  const int64_t n = x.numel();
  for (int64_t i = 0; i < n; i += tile)
    out[static_cast<size_t>(i / tile)] = sum_of_squares(std::min(tile, n - i), x.as<float>() + i);
}

}  // namespace

const ops::AdamWImpl adamw_row{.name = "ref", .run = {step, whole_sum, tile_sums}};

}  // namespace coca::ref

// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/adamw.h"

#include <algorithm>
#include <cmath>

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/adamw.h"
#include "coca/kernels/ref/adamw.h"
#include "coca/kernels/ref/cast.h"
#include "coca/ops/check.h"
#include "coca/ops/impl.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "adamw";
constexpr int64_t kGrain = 65536;  // elements a task, and a block of the sum of squares

cpu::AdamWFactors factors(const AdamWStep& a) {
  const double beta1 = a.beta1, beta2 = a.beta2, lr = a.learning_rate, step = static_cast<double>(a.step);
  return {.grad_scale = a.grad_scale,
          .beta1 = a.beta1,
          .one_minus_beta1 = static_cast<float>(1.0 - beta1),
          .beta2 = a.beta2,
          .one_minus_beta2 = static_cast<float>(1.0 - beta2),
          .decay = static_cast<float>(1.0 - lr * static_cast<double>(a.weight_decay)),
          .step_size = static_cast<float>(lr / (1.0 - std::pow(beta1, step))),
          .root_scale = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(beta2, step))),
          .eps = a.eps};
}

}  // namespace

void adamw_step(Context& context, const AdamWStep& a) {
  check_packed(kOp, "grad", a.grad);
  check_packed(kOp, "param", a.param, a.grad.shape);
  check_packed(kOp, "m", a.m, a.grad.shape);
  check_packed(kOp, "v", a.v, a.grad.shape);
  if (!a.copy.empty()) check_packed(kOp, "copy", a.copy, a.grad.shape, DType::kBF16);
  COCA_CHECK(a.step >= 1, "[{}] step = {} must be at least 1", kOp, a.step);
  COCA_CHECK(a.beta1 >= 0 && a.beta1 < 1 && a.beta2 >= 0 && a.beta2 < 1,
             "[{}] betas ({}, {}) must be in [0, 1)", kOp, a.beta1, a.beta2);
  const int64_t n = a.grad.numel();
  const float* grad = a.grad.as<float>();
  float *param = a.param.as<float>(), *m = a.m.as<float>(), *v = a.v.as<float>();
  BF16* copy = a.copy.as<BF16>();
  if (use_ref(context, kOp)) {
    ref::adamw_step<float>({.learning_rate = a.learning_rate,
                            .beta1 = a.beta1,
                            .beta2 = a.beta2,
                            .eps = a.eps,
                            .weight_decay = a.weight_decay,
                            .grad_scale = a.grad_scale,
                            .step = a.step},
                           n, grad, param, m, v);
    if (copy) ref::cast(n, param, copy);
    return;
  }
  const cpu::AdamWFactors f = factors(a);
  parallel_blocks(n, kGrain, [&](int64_t i0, int64_t i1) {
    cpu::adamw_update(f, grad + i0, param + i0, m + i0, v + i0, copy ? copy + i0 : nullptr, i1 - i0);
  });
}

double sum_of_squares(Context& context, TensorRef t) {
  check_packed("sum_of_squares", "x", t);
  const int64_t n = t.numel(), blocks = (n + kGrain - 1) / kGrain;
  const float* x = t.as<float>();
  if (use_ref(context, kOp)) return ref::sum_of_squares(n, x);
  auto* partial = static_cast<double*>(context.scratch(static_cast<size_t>(blocks + 1) * sizeof(double)));
  parallel_blocks(n, kGrain, [&](int64_t i0, int64_t i1) {
    partial[i0 / kGrain] = cpu::sum_of_squares_block(x + i0, i1 - i0);
  });
  double sum = 0;
  for (int64_t i = 0; i < blocks; ++i) sum += partial[i];
  return sum;
}

void tile_sums_of_squares(Context& context, TensorRef t, int64_t tile, std::span<double> out) {
  check_packed("sum_of_squares", "x", t);
  const int64_t n = t.numel(), tiles = tile > 0 ? (n + tile - 1) / tile : -1;
  COCA_CHECK(static_cast<int64_t>(out.size()) == tiles, "[sum_of_squares] {} sums for {} elements in tiles of {}", out.size(), n, tile);
  const float* x = t.as<float>();
  const bool ref = use_ref(context, kOp);
  parallel_blocks(n, std::max(tile, kGrain / tile * tile), [&](int64_t i0, int64_t i1) {
    for (int64_t i = i0; i < i1; i += tile) {
      const int64_t count = std::min(tile, i1 - i);
      out[static_cast<size_t>(i / tile)] = ref ? ref::sum_of_squares(count, x + i) : cpu::sum_of_squares_block(x + i, count);
    }
  });
}

}  // namespace coca::ops

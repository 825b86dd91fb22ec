// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <span>

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/adamw.h"
#include "coca/kernels/cpu/rows.h"

namespace coca::cpu {

namespace {

constexpr int64_t kGrain = 65536;  // elements a task, and a block of the sum of squares

void step(Context&, const ops::AdamWStep& a) {
  const int64_t n = a.grad.numel();
  const float* grad = a.grad.as<float>();
  float *param = a.param.as<float>(), *m = a.m.as<float>(), *v = a.v.as<float>();
  BF16* copy = a.copy.as<BF16>();
  const ops::AdamWFactors f = ops::adamw_factors(a);
  parallel_blocks(n, kGrain, [&](int64_t i0, int64_t i1) {
    adamw_update(f, grad + i0, param + i0, m + i0, v + i0, copy ? copy + i0 : nullptr, i1 - i0);
  });
}

double sum_of_squares(Context& context, TensorRef t) {
  const int64_t n = t.numel(), blocks = (n + kGrain - 1) / kGrain;
  const float* x = t.as<float>();
  auto* partial = static_cast<double*>(context.scratch(static_cast<size_t>(blocks + 1) * sizeof(double)));
  parallel_blocks(n, kGrain,
                  [&](int64_t i0, int64_t i1) { partial[i0 / kGrain] = sum_of_squares_block(x + i0, i1 - i0); });
  double sum = 0;
  for (int64_t i = 0; i < blocks; ++i) sum += partial[i];
  return sum;
}

void tile_sums_of_squares(Context&, TensorRef t, int64_t tile, std::span<double> out) {
  const int64_t n = t.numel();
  const float* x = t.as<float>();
  parallel_blocks(n, std::max(tile, kGrain / tile * tile), [&](int64_t i0, int64_t i1) {
    for (int64_t i = i0; i < i1; i += tile)
      out[static_cast<size_t>(i / tile)] = sum_of_squares_block(x + i, std::min(tile, i1 - i));
  });
}

}  // namespace

const ops::AdamWImpl adamw_row{.name = "cpu", .run = {step, sum_of_squares, tile_sums_of_squares}};

}  // namespace coca::cpu

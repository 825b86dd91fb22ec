// The AdamW update (28 bytes a parameter) and the sum of squares for clipping (4 bytes).
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include "coca/ops/adamw.h"

namespace coca {
namespace {

using benchmark::Counter;

void adamw_step(benchmark::State& state) {
  const int64_t n = state.range(0);
  Context context;
  Tensor grad({n}), param({n}), m({n}), v({n});
  for (float& g : grad.values<float>()) g = 1e-3f;
  int64_t step = 0;
  for (auto _ : state)
    ops::adamw_step(context,
                    {.weight_decay = 0.1f, .step = ++step, .grad = grad, .param = param, .m = m, .v = v});
  state.counters["GB/s"] = Counter(28e-9 * static_cast<double>(n), Counter::kIsIterationInvariantRate);
}

void sum_of_squares(benchmark::State& state) {
  const Tensor x({state.range(0)});
  Context context;
  for (auto _ : state) benchmark::DoNotOptimize(ops::sum_of_squares(context, x));
  state.counters["GB/s"] =
      Counter(4e-9 * static_cast<double>(state.range(0)), Counter::kIsIterationInvariantRate);
}

BENCHMARK(adamw_step)
    ->Arg(512 * 512)
    ->Arg(1 << 20)
    ->Arg(25 << 20)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(sum_of_squares)->Arg(512 * 512)->Arg(25 << 20)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace coca

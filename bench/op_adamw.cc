// The AdamW update (28 bytes per parameter, 30 with a bf16 copy, 34 if a separate cast makes it), and the sum of
// squares for clipping (4 bytes).
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include "coca/ops/adamw.h"
#include "coca/ops/cast.h"

namespace coca {
namespace {

using benchmark::Counter;

enum class Copy { kNone, kSamePass, kCast };

template <Copy kCopy>
void adamw_step(benchmark::State& state) {
  const int64_t n = state.range(0);
  Context context;
  Tensor grad({n}), param({n}), m({n}), v({n}), copy({n}, DType::kBF16);
  for (float& g : grad.values<float>()) g = 1e-3f;
  int64_t step = 0;
  for (auto _ : state) {
    ops::adamw_step(context, {.weight_decay = 0.1f,
                              .step = ++step,
                              .grad = grad,
                              .param = param,
                              .m = m,
                              .v = v,
                              .copy = kCopy == Copy::kSamePass ? copy.ref() : MutTensorRef()});
    if (kCopy == Copy::kCast) ops::cast(context, {.x = param, .y = copy});
  }
  constexpr double kBytes = kCopy == Copy::kNone ? 28 : kCopy == Copy::kSamePass ? 30 : 34;
  state.counters["GB/s"] = Counter(1e-9 * kBytes * static_cast<double>(n), Counter::kIsIterationInvariantRate);
}

void sum_of_squares(benchmark::State& state) {
  const Tensor x({state.range(0)});
  Context context;
  for (auto _ : state) benchmark::DoNotOptimize(ops::sum_of_squares(context, x));
  state.counters["GB/s"] = Counter(4e-9 * static_cast<double>(state.range(0)), Counter::kIsIterationInvariantRate);
}

void sizes(benchmark::internal::Benchmark* b) {
  b->Arg(512 * 512)->Arg(1 << 20)->Arg(25 << 20)->UseRealTime()->Unit(benchmark::kMicrosecond);
}
BENCHMARK(adamw_step<Copy::kNone>)->Name("adamw_step")->Apply(sizes);
BENCHMARK(adamw_step<Copy::kSamePass>)->Name("adamw_step_bf16_copy")->Apply(sizes);
BENCHMARK(adamw_step<Copy::kCast>)->Name("adamw_step_then_cast")->Apply(sizes);
BENCHMARK(sum_of_squares)->Arg(512 * 512)->Arg(25 << 20)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace coca

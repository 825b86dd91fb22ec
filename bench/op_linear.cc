// Linear layers of real configurations: M = 4096 rows as in training, M = 1 and 8 as in decoding.
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include "coca/ops/linear.h"

namespace coca {
namespace {

void report(benchmark::State& state, double products) {
  const double flop = 2.0 * static_cast<double>(state.range(0) * state.range(1) * state.range(2)) * products;
  state.counters["GFLOP/s"] = benchmark::Counter(flop * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void linear_forward(benchmark::State& state) {
  const int64_t M = state.range(0), N = state.range(1), K = state.range(2);
  Context context;
  const Tensor x({M, K}), w({N, K}), b({N});
  Tensor y({M, N});
  for (auto _ : state) ops::linear_forward(context, {.x = x, .w = w, .b = b, .y = y});
  report(state, 1);
}

void linear_backward(benchmark::State& state) {
  const int64_t M = state.range(0), N = state.range(1), K = state.range(2);
  Context context;
  const Tensor x({M, K}), w({N, K}), dy({M, N});
  Tensor dx({M, K}), dw({N, K}), db({N});
  for (auto _ : state) ops::linear_backward(context, {.x = x, .w = w, .dy = dy, .dx = dx, .dw = dw, .db = db});
  report(state, 2);
}

void training_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"M", "N", "K"})->UseRealTime()->Unit(benchmark::kMillisecond);
  for (int64_t C : {128, 512, 1024}) {
    b->Args({4096, C, C});
    b->Args({4096, 4 * C, C});
    b->Args({4096, C, 4 * C});
  }
}
void decoding_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"M", "N", "K"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (int64_t M : {1, 8}) b->Args({M, 2048, 512})->Args({M, 32000, 512});
}
BENCHMARK(linear_forward)->Apply(training_shapes);
BENCHMARK(linear_forward)->Name("linear_forward_decode")->Apply(decoding_shapes);
BENCHMARK(linear_backward)->Apply(training_shapes);

}  // namespace
}  // namespace coca

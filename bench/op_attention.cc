// Causal attention forward and backward: GFLOP/s (products under the mask only: 4 D per visible pair forward,
// 10 D backward) next to the rate of a large matrix product in the same process.
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include "coca/base/rng.h"
#include "coca/ops/attention.h"
#include "coca/ops/linear.h"

namespace {

using coca::Context;
using coca::Tensor;

void fill(Tensor& t, uint64_t seed) {
  coca::Rng rng(seed);
  for (float& x : t.values<float>()) x = static_cast<float>(rng.uniform() - 0.5);
}

void BM_MatrixProduct(benchmark::State& state) {
  const int64_t n = state.range(0);
  Tensor x({n, n}), w({n, n}), y({n, n});
  fill(x, 1), fill(w, 2);
  Context context;
  for (auto _ : state) coca::ops::linear_forward(context, {.x = x, .w = w, .y = y});
  state.counters["GFLOP/s"] = benchmark::Counter(2e-9 * static_cast<double>(n * n * n),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(BM_MatrixProduct)->Arg(2048)->UseRealTime()->Unit(benchmark::kMillisecond);

// Args: B, N, H, D
void BM_Attention(benchmark::State& state, bool backward) {
  const int64_t B = state.range(0), N = state.range(1), H = state.range(2), D = state.range(3);
  Tensor q({B, N, H, D}), k({B, N, H, D}), v({B, N, H, D}), o({B, N, H, D}), lse({B, H, N});
  Tensor d_o({B, N, H, D}), dq({B, N, H, D}), dk({B, N, H, D}), dv({B, N, H, D});
  fill(q, 1), fill(k, 2), fill(v, 3), fill(d_o, 4);
  Context context;
  coca::ops::attention_forward(context, {}, {.q = q, .k = k, .v = v, .o = o, .lse = lse});
  for (auto _ : state) {
    if (backward)
      coca::ops::attention_backward(context, {}, {.q = q, .k = k, .v = v, .o = o, .lse = lse, .d_o = d_o, .dq = dq,
                                                  .dk = dk, .dv = dv});
    else
      coca::ops::attention_forward(context, {}, {.q = q, .k = k, .v = v, .o = o, .lse = lse});
  }
  const double pairs = static_cast<double>(B * H) * static_cast<double>(N) * static_cast<double>(N + 1) / 2;
  state.counters["GFLOP/s"] = benchmark::Counter(1e-9 * pairs * static_cast<double>(D) * (backward ? 10 : 4),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}
void shapes(benchmark::internal::Benchmark* b) {
  b->Args({32, 128, 4, 32})->Args({8, 512, 8, 64})->Args({1, 2048, 8, 64})->Args({1, 8192, 4, 64})->Args({1, 2048, 4, 128});
  b->UseRealTime()->Unit(benchmark::kMillisecond);
}
BENCHMARK_CAPTURE(BM_Attention, forward, false)->Apply(shapes);
BENCHMARK_CAPTURE(BM_Attention, backward, true)->Apply(shapes);

}  // namespace

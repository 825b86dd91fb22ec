// Middle keys for N queries and S keys, 16 heads of 64: finding them, and adding five per query to the softmax. GFLOP/s
// counts 2 D for each score.
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include "coca/ops/top_keys.h"

namespace coca {
namespace {

constexpr int64_t kHeads = 16, kDim = 64, kCount = 5;

struct Middle {
  Middle(int64_t N, int64_t S)
      : q({1, N, kHeads, kDim}),
        k({1, S, kHeads, kDim}),
        v({1, S, kHeads, kDim}),
        o(q.shape()),
        lse({1, kHeads, N}),
        scores({1, N, kHeads, kCount}),
        keys({1, N, kHeads, kCount}, DType::kI32),
        options{.count = kCount, .query_start = S - N} {
    uint32_t state = 1;  // the scores must differ, or the lists would never change
    for (Tensor* t : {&q, &k, &v})
      for (float& x : t->values<float>())
        x = static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-24f - 0.5f;
  }
  Tensor q, k, v, o, lse, scores, keys;
  ops::TopKeysOptions options;
};

void find(benchmark::State& state) {
  const int64_t N = state.range(0), S = state.range(1);
  Middle m(N, S);
  Context context;
  for (auto _ : state)
    ops::top_keys_find(context, m.options, {.q = m.q, .k = m.k, .slopes = {}, .scores = m.scores, .keys = m.keys});
  const double flops =
      2.0 * (static_cast<double>(N * (S - N)) + static_cast<double>(N * N) / 2) * static_cast<double>(kHeads * kDim);
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void add(benchmark::State& state) {
  Middle m(state.range(0), state.range(1));
  Context context;
  ops::top_keys_find(context, m.options, {.q = m.q, .k = m.k, .slopes = {}, .scores = m.scores, .keys = m.keys});
  for (auto _ : state)
    ops::top_keys_add(context, {.scores = m.scores, .keys = m.keys, .v = m.v, .o = m.o, .lse = m.lse});
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"N", "S"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  b->Args({1, 4096})->Args({1, 32768})->Args({1024, 4096});
}
BENCHMARK(find)->Name("top_keys_find")->Apply(shapes);
BENCHMARK(add)->Name("top_keys_add")->Apply(shapes);

}  // namespace
}  // namespace coca

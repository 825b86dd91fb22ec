// Cross entropy of given logits, and the language-model loss fused with its head (three products per step).
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include "coca/base/rng.h"
#include "coca/ops/cross_entropy.h"

namespace coca {
namespace {

using benchmark::Counter;

template <typename T = float>
Tensor small_values(const Dims& shape, uint64_t seed) {
  Tensor t(shape, DTypeOf<T>::value);
  Rng rng(seed);
  for (T& v : t.values<T>()) v = static_cast<T>(static_cast<float>(rng.uniform() - 0.5));
  return t;
}

Tensor random_targets(int64_t M, int64_t V) {
  Tensor t({M}, DType::kI32);
  Rng rng(7);
  for (int32_t& v : t.values<int32_t>()) v = static_cast<int32_t>(rng.below(static_cast<uint64_t>(V)));
  return t;
}

void cross_entropy_forward(benchmark::State& state) {
  const int64_t M = state.range(0), V = state.range(1);
  Context context;
  const Tensor logits = small_values({M, V}, 1), targets = random_targets(M, V);
  Tensor nll({M}), lse({M});
  for (auto _ : state)
    ops::cross_entropy_forward(context, {.logits = logits, .targets = targets, .nll = nll, .lse = lse});
  state.counters["GB/s"] = Counter(4e-9 * static_cast<double>(M * V), Counter::kIsIterationInvariantRate);
}

void cross_entropy_backward(benchmark::State& state) {
  const int64_t M = state.range(0), V = state.range(1);
  Context context;
  const Tensor logits = small_values({M, V}, 1), targets = random_targets(M, V);
  Tensor nll({M}), lse({M}), dlogits({M, V});
  ops::cross_entropy_forward(context, {.logits = logits, .targets = targets, .nll = nll, .lse = lse});
  for (auto _ : state)
    ops::cross_entropy_backward(context, {.logits = logits, .targets = targets, .lse = lse, .dlogits = dlogits});
  state.counters["GB/s"] = Counter(8e-9 * static_cast<double>(M * V), Counter::kIsIterationInvariantRate);
}

// chunk 0: the op chooses. T is the type of x, w and dx.
template <typename T>
void lm_loss_forward_backward(benchmark::State& state) {
  const int64_t M = state.range(0), V = state.range(1), C = state.range(2);
  Context context;
  const Tensor x = small_values<T>({M, C}, 1), w = small_values<T>({V, C}, 2), targets = random_targets(M, V);
  Tensor nll({M}), dx({M, C}, DTypeOf<T>::value), dw({V, C});
  for (auto _ : state)
    ops::lm_loss_forward_backward(context,
                                  {.x = x, .w = w, .targets = targets, .nll = nll, .chunk_rows = state.range(3)},
                                  {.scale = 1.0f / static_cast<float>(M), .dx = dx, .dw = dw});
  state.counters["GFLOP/s"] = Counter(6e-9 * static_cast<double>(M * V * C), Counter::kIsIterationInvariantRate);
}

BENCHMARK(cross_entropy_forward)
    ->ArgNames({"M", "V"})
    ->Args({4096, 256})
    ->Args({256, 16384})
    ->Args({64, 100000})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(cross_entropy_backward)
    ->ArgNames({"M", "V"})
    ->Args({4096, 256})
    ->Args({256, 16384})
    ->Args({64, 100000})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
void lm_loss_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"M", "V", "C", "chunk"})->UseRealTime()->Unit(benchmark::kMillisecond);
  b->Args({4096, 256, 128, 0})->Args({4096, 256, 512, 0});
  for (int64_t chunk : {64, 0, 1024}) b->Args({1024, 16384, 512, chunk});
  for (int64_t chunk : {41, 0, 512}) b->Args({512, 100000, 512, chunk});
}
BENCHMARK(lm_loss_forward_backward<float>)->Name("lm_loss_forward_backward")->Apply(lm_loss_shapes);
BENCHMARK(lm_loss_forward_backward<BF16>)->Name("lm_loss_forward_backward_bf16")->Apply(lm_loss_shapes);

}  // namespace
}  // namespace coca

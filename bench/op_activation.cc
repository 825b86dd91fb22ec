// GELU and SwiGLU over [M, F]. GB/s counts each operand once; Gelem/s shows the cost of exp.
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include "coca/base/rng.h"
#include "coca/ops/activation.h"

namespace coca {
namespace {

Tensor normal_tensor(const Dims& shape, uint64_t seed) {
  Tensor t(shape);
  Rng rng(seed);
  for (float& v : t.values<float>()) v = static_cast<float>(rng.normal());
  return t;
}

void report(benchmark::State& state, double streams) {
  const double n = static_cast<double>(state.range(0) * state.range(1));
  using benchmark::Counter;
  state.counters["GB/s"] = Counter(4e-9 * streams * n, Counter::kIsIterationInvariantRate);
  state.counters["Gelem/s"] = Counter(1e-9 * n, Counter::kIsIterationInvariantRate);
}

template <ops::Gelu kKind>
void gelu_forward(benchmark::State& state) {
  const Dims shape{state.range(0), state.range(1)};
  Context context;
  const Tensor x = normal_tensor(shape, 1);
  Tensor y(shape);
  for (auto _ : state) ops::gelu_forward(context, {.kind = kKind, .x = x, .y = y});
  report(state, 2);
}

template <ops::Gelu kKind>
void gelu_backward(benchmark::State& state) {
  const Dims shape{state.range(0), state.range(1)};
  Context context;
  const Tensor x = normal_tensor(shape, 1), dy = normal_tensor(shape, 2);
  Tensor dx(shape);
  for (auto _ : state) ops::gelu_backward(context, {.kind = kKind, .x = x, .dy = dy, .dx = dx});
  report(state, 3);
}

void swiglu_forward(benchmark::State& state) {
  const Dims shape{state.range(0), state.range(1)};
  Context context;
  const Tensor gate = normal_tensor(shape, 1), up = normal_tensor(shape, 2);
  Tensor y(shape);
  for (auto _ : state) ops::swiglu_forward(context, {.gate = gate, .up = up, .y = y});
  report(state, 3);
}

void swiglu_backward(benchmark::State& state) {
  const Dims shape{state.range(0), state.range(1)};
  Context context;
  const Tensor gate = normal_tensor(shape, 1), up = normal_tensor(shape, 2), dy = normal_tensor(shape, 3);
  Tensor dgate(shape), dup(shape);
  for (auto _ : state)
    ops::swiglu_backward(context, {.gate = gate, .up = up, .dy = dy, .dgate = dgate, .dup = dup});
  report(state, 5);
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"M", "F"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  b->Args({64, 2048})->Args({4096, 512})->Args({4096, 2048});
}
BENCHMARK(gelu_forward<ops::Gelu::kExact>)->Name("gelu_exact_forward")->Apply(shapes);
BENCHMARK(gelu_backward<ops::Gelu::kExact>)->Name("gelu_exact_backward")->Apply(shapes);
BENCHMARK(gelu_forward<ops::Gelu::kTanh>)->Name("gelu_tanh_forward")->Apply(shapes);
BENCHMARK(gelu_backward<ops::Gelu::kTanh>)->Name("gelu_tanh_backward")->Apply(shapes);
BENCHMARK(swiglu_forward)->Apply(shapes);
BENCHMARK(swiglu_backward)->Apply(shapes);

}  // namespace
}  // namespace coca

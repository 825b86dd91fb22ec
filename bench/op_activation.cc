// GELU and SwiGLU over [M, F] in fp32 and bf16. GB/s counts each operand once; Gelem/s shows the cost of exp.
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include "coca/base/rng.h"
#include "coca/ops/activation.h"

namespace coca {
namespace {

template <typename T>
Tensor normal_tensor(const Dims& shape, uint64_t seed) {
  Tensor t(shape, DTypeOf<T>::value);
  Rng rng(seed);
  for (T& v : t.values<T>()) v = static_cast<T>(static_cast<float>(rng.normal()));
  return t;
}

template <typename T>
void report(benchmark::State& state, double streams) {
  const double n = static_cast<double>(state.range(0) * state.range(1));
  using benchmark::Counter;
  state.counters["GB/s"] =
      Counter(1e-9 * static_cast<double>(sizeof(T)) * streams * n, Counter::kIsIterationInvariantRate);
  state.counters["Gelem/s"] = Counter(1e-9 * n, Counter::kIsIterationInvariantRate);
}

template <ops::Gelu kKind, typename T>
void gelu_forward(benchmark::State& state) {
  const Dims shape{state.range(0), state.range(1)};
  Context context;
  const Tensor x = normal_tensor<T>(shape, 1);
  Tensor y(shape, DTypeOf<T>::value);
  for (auto _ : state) ops::gelu_forward(context, {.kind = kKind, .x = x, .y = y});
  report<T>(state, 2);
}

template <ops::Gelu kKind, typename T>
void gelu_backward(benchmark::State& state) {
  const Dims shape{state.range(0), state.range(1)};
  Context context;
  const Tensor x = normal_tensor<T>(shape, 1), dy = normal_tensor<T>(shape, 2);
  Tensor dx(shape, DTypeOf<T>::value);
  for (auto _ : state) ops::gelu_backward(context, {.kind = kKind, .x = x, .dy = dy, .dx = dx});
  report<T>(state, 3);
}

template <typename T>
void swiglu_forward(benchmark::State& state) {
  const Dims shape{state.range(0), state.range(1)};
  Context context;
  const Tensor gate = normal_tensor<T>(shape, 1), up = normal_tensor<T>(shape, 2);
  Tensor y(shape, DTypeOf<T>::value);
  for (auto _ : state) ops::swiglu_forward(context, {.gate = gate, .up = up, .y = y});
  report<T>(state, 3);
}

template <typename T>
void swiglu_backward(benchmark::State& state) {
  const Dims shape{state.range(0), state.range(1)};
  Context context;
  const Tensor gate = normal_tensor<T>(shape, 1), up = normal_tensor<T>(shape, 2), dy = normal_tensor<T>(shape, 3);
  Tensor dgate(shape, DTypeOf<T>::value), dup(shape, DTypeOf<T>::value);
  for (auto _ : state) ops::swiglu_backward(context, {.gate = gate, .up = up, .dy = dy, .dgate = dgate, .dup = dup});
  report<T>(state, 5);
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"M", "F"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  b->Args({64, 2048})->Args({4096, 512})->Args({4096, 2048});
}
BENCHMARK(gelu_forward<ops::Gelu::kExact, float>)->Name("gelu_exact_forward")->Apply(shapes);
BENCHMARK(gelu_backward<ops::Gelu::kExact, float>)->Name("gelu_exact_backward")->Apply(shapes);
BENCHMARK(gelu_forward<ops::Gelu::kTanh, float>)->Name("gelu_tanh_forward")->Apply(shapes);
BENCHMARK(gelu_backward<ops::Gelu::kTanh, float>)->Name("gelu_tanh_backward")->Apply(shapes);
BENCHMARK(swiglu_forward<float>)->Name("swiglu_forward")->Apply(shapes);
BENCHMARK(swiglu_backward<float>)->Name("swiglu_backward")->Apply(shapes);
BENCHMARK(gelu_forward<ops::Gelu::kExact, BF16>)->Name("gelu_exact_forward_bf16")->Apply(shapes);
BENCHMARK(gelu_backward<ops::Gelu::kExact, BF16>)->Name("gelu_exact_backward_bf16")->Apply(shapes);
BENCHMARK(gelu_forward<ops::Gelu::kTanh, BF16>)->Name("gelu_tanh_forward_bf16")->Apply(shapes);
BENCHMARK(gelu_backward<ops::Gelu::kTanh, BF16>)->Name("gelu_tanh_backward_bf16")->Apply(shapes);
BENCHMARK(swiglu_forward<BF16>)->Name("swiglu_forward_bf16")->Apply(shapes);
BENCHMARK(swiglu_backward<BF16>)->Name("swiglu_backward_bf16")->Apply(shapes);

}  // namespace
}  // namespace coca

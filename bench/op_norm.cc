// LayerNorm and RMSNorm over M = 4096 rows. GB/s counts each operand once: x and y forward; x, dy and dx (read and
// written) backward; y and dy in fp32 or bf16.
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include "coca/ops/norm.h"

namespace coca {
namespace {

// Bytes per element of [M, C].
void report(benchmark::State& state, double per_element) {
  const double bytes = per_element * static_cast<double>(state.range(0) * state.range(1));
  state.counters["GB/s"] = benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

template <ops::NormKind kKind, typename T>
void norm_forward(benchmark::State& state) {
  const int64_t M = state.range(0), C = state.range(1);
  Context context;
  const Tensor x({M, C}), w({C}), b({C});
  Tensor y({M, C}, DTypeOf<T>::value), stat({M, 2});
  for (auto _ : state) ops::norm_forward(context, {.kind = kKind, .x = x, .w = w, .b = b, .y = y, .stat = stat});
  report(state, 4 + sizeof(T));
}

template <ops::NormKind kKind, typename T>
void norm_backward(benchmark::State& state) {
  const int64_t M = state.range(0), C = state.range(1);
  Context context;
  const Tensor x({M, C}), w({C}), stat({M, 2}), dy({M, C}, DTypeOf<T>::value);
  Tensor dx({M, C}), dw({C}), db({C});
  for (auto _ : state)
    ops::norm_backward(context, {.kind = kKind, .x = x, .w = w, .stat = stat, .dy = dy, .dx = dx, .dw = dw, .db = db});
  report(state, 12 + sizeof(T));
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"M", "C"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (int64_t C : {128, 512, 1024}) b->Args({4096, C});
}
BENCHMARK(norm_forward<ops::NormKind::kLayerNorm, float>)->Name("layer_norm_forward")->Apply(shapes);
BENCHMARK(norm_forward<ops::NormKind::kRmsNorm, float>)->Name("rms_norm_forward")->Apply(shapes);
BENCHMARK(norm_backward<ops::NormKind::kLayerNorm, float>)->Name("layer_norm_backward")->Apply(shapes);
BENCHMARK(norm_backward<ops::NormKind::kRmsNorm, float>)->Name("rms_norm_backward")->Apply(shapes);
BENCHMARK(norm_forward<ops::NormKind::kLayerNorm, BF16>)->Name("layer_norm_forward_bf16")->Apply(shapes);
BENCHMARK(norm_forward<ops::NormKind::kRmsNorm, BF16>)->Name("rms_norm_forward_bf16")->Apply(shapes);
BENCHMARK(norm_backward<ops::NormKind::kLayerNorm, BF16>)->Name("layer_norm_backward_bf16")->Apply(shapes);
BENCHMARK(norm_backward<ops::NormKind::kRmsNorm, BF16>)->Name("rms_norm_backward_bf16")->Apply(shapes);

}  // namespace
}  // namespace coca

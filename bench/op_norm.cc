// LayerNorm and RMSNorm over M = 4096 rows. GB/s counts each operand once: x, y | x, dy, dx read and written.
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include "coca/ops/norm.h"

namespace coca {
namespace {

void report(benchmark::State& state, double streams) {
  const double bytes = 4.0 * streams * static_cast<double>(state.range(0) * state.range(1));
  state.counters["GB/s"] = benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

template <ops::NormKind kKind>
void norm_forward(benchmark::State& state) {
  const int64_t M = state.range(0), C = state.range(1);
  Context context;
  const Tensor x({M, C}), w({C}), b({C});
  Tensor y({M, C}), stat({M, 2});
  for (auto _ : state)
    ops::norm_forward(context, {.kind = kKind, .x = x, .w = w, .b = b, .y = y, .stat = stat});
  report(state, 2);
}

template <ops::NormKind kKind>
void norm_backward(benchmark::State& state) {
  const int64_t M = state.range(0), C = state.range(1);
  Context context;
  const Tensor x({M, C}), w({C}), stat({M, 2}), dy({M, C});
  Tensor dx({M, C}), dw({C}), db({C});
  for (auto _ : state)
    ops::norm_backward(context,
                       {.kind = kKind, .x = x, .w = w, .stat = stat, .dy = dy, .dx = dx, .dw = dw, .db = db});
  report(state, 4);
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"M", "C"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (int64_t C : {128, 512, 1024}) b->Args({4096, C});
}
BENCHMARK(norm_forward<ops::NormKind::kLayerNorm>)->Name("layer_norm_forward")->Apply(shapes);
BENCHMARK(norm_forward<ops::NormKind::kRmsNorm>)->Name("rms_norm_forward")->Apply(shapes);
BENCHMARK(norm_backward<ops::NormKind::kLayerNorm>)->Name("layer_norm_backward")->Apply(shapes);
BENCHMARK(norm_backward<ops::NormKind::kRmsNorm>)->Name("rms_norm_backward")->Apply(shapes);

}  // namespace
}  // namespace coca

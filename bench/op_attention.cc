// Causal attention, forward and backward: GFLOP/s (only products under the mask: 4 D per visible pair forward, 10 D
// backward) and the rate of a large matrix product in the same process. "layer" is the prologue and attention together,
// for RoPE and CoCA with head dims 32 to 256; bench/README.md says how to compare the two. "packed" compares several
// documents in one row with the same row as a single document. "window" has windows with and without far keys.
// "dilated" compares dilated windows with the causal mask. "variant" compares forget gates, and queries and keys twice
// as wide as the values, with the plain call.
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "coca/base/rng.h"
#include "coca/ops/attention.h"
#include "coca/ops/collinear.h"
#include "coca/ops/dilated_attention.h"
#include "coca/ops/linear.h"
#include "coca/ops/rope.h"

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
  fill(x, 1);
  fill(w, 2);
  Context context;
  for (auto _ : state) coca::ops::linear_forward(context, {.x = x, .w = w, .y = y});
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * static_cast<double>(n * n * n), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(BM_MatrixProduct)->Arg(2048)->UseRealTime()->Unit(benchmark::kMillisecond);

void count(benchmark::State& state, double products, int64_t documents = 1) {  // Args: B, N, H, D
  const int64_t B = state.range(0), N = state.range(1), H = state.range(2), D = state.range(3);
  const double pairs = static_cast<double>(B * H) * static_cast<double>(N) *
                       (static_cast<double>(N) / static_cast<double>(documents) + 1) / 2;
  state.counters["GFLOP/s"] = benchmark::Counter(1e-9 * pairs * static_cast<double>(D) * products,
                                                 benchmark::Counter::kIsIterationInvariantRate);
}

void BM_Attention(benchmark::State& state, bool backward) {
  const int64_t B = state.range(0), N = state.range(1), H = state.range(2), D = state.range(3);
  Tensor q({B, N, H, D}), k({B, N, H, D}), v({B, N, H, D}), o({B, N, H, D}), lse({B, H, N});
  Tensor d_o({B, N, H, D}), dq({B, N, H, D}), dk({B, N, H, D}), dv({B, N, H, D});
  fill(q, 1);
  fill(k, 2);
  fill(v, 3);
  fill(d_o, 4);
  Context context;
  coca::ops::attention_forward(context, {}, {.q = q, .k = k, .v = v, .o = o, .lse = lse});
  for (auto _ : state) {
    if (backward)
      coca::ops::attention_backward(
          context, {}, {.q = q, .k = k, .v = v, .o = o, .lse = lse, .d_o = d_o, .dq = dq, .dk = dk, .dv = dv});
    else
      coca::ops::attention_forward(context, {}, {.q = q, .k = k, .v = v, .o = o, .lse = lse});
  }
  count(state, backward ? 10 : 4);
}

// Args: B, N, H, D, the width E of queries and keys, forget gates (0 or 1).
void BM_Variant(benchmark::State& state, bool backward) {
  const int64_t B = state.range(0), N = state.range(1), H = state.range(2), D = state.range(3), E = state.range(4);
  Tensor q({B, N, H, E}), k({B, N, H, E}), v({B, N, H, D}), o({B, N, H, D}), lse({B, H, N});
  Tensor d_o({B, N, H, D}), dq({B, N, H, E}), dk({B, N, H, E}), dv({B, N, H, D}), gates({B, H, N}), ddecay({B, H, N});
  fill(q, 1);
  fill(k, 2);
  fill(v, 3);
  fill(d_o, 4);
  for (int64_t i = 0; i < B * H * N; ++i)
    gates.values<float>()[static_cast<size_t>(i)] = -0.01f * static_cast<float>(i % N);
  const coca::TensorRef decay = state.range(5) != 0 ? gates.ref() : coca::TensorRef();
  Context context;
  const coca::ops::AttentionForward forward{.q = q, .k = k, .v = v, .decay = decay, .o = o, .lse = lse};
  coca::ops::attention_forward(context, {}, forward);
  for (auto _ : state) {
    if (backward)
      coca::ops::attention_backward(context, {},
                                    {.q = q,
                                     .k = k,
                                     .v = v,
                                     .decay = decay,
                                     .o = o,
                                     .lse = lse,
                                     .d_o = d_o,
                                     .dq = dq,
                                     .dk = dk,
                                     .dv = dv,
                                     .ddecay = ddecay});
    else
      coca::ops::attention_forward(context, {}, forward);
  }
  const double width = static_cast<double>(E) / static_cast<double>(D);
  count(state, backward ? 6 * width + 4 : 2 * width + 2);
}
void variants(benchmark::internal::Benchmark* b) {
  b->Args({1, 2048, 8, 64, 64, 0})->Args({1, 2048, 8, 64, 64, 1})->Args({1, 2048, 8, 64, 128, 0});
  b->ArgNames({"B", "N", "H", "D", "E", "gates"})->UseRealTime()->Unit(benchmark::kMillisecond);
}
BENCHMARK_CAPTURE(BM_Variant, forward, false)->Apply(variants);
BENCHMARK_CAPTURE(BM_Variant, backward, true)->Apply(variants);

// Args: B, N, H, D, documents of equal length in a row. A single document uses the causal mask without document_start.
void BM_Packed(benchmark::State& state, bool backward) {
  const int64_t B = state.range(0), N = state.range(1), H = state.range(2), D = state.range(3),
                documents = state.range(4);
  Tensor q({B, N, H, D}), k({B, N, H, D}), v({B, N, H, D}), o({B, N, H, D}), lse({B, H, N});
  Tensor d_o({B, N, H, D}), dq({B, N, H, D}), dk({B, N, H, D}), dv({B, N, H, D}), starts;
  fill(q, 1);
  fill(k, 2);
  fill(v, 3);
  fill(d_o, 4);
  if (documents > 1) {
    const int64_t length = N / documents;
    starts = Tensor({B, N}, coca::DType::kI32);
    for (int64_t i = 0; i < B * N; ++i)
      starts.values<int32_t>()[static_cast<size_t>(i)] = static_cast<int32_t>(i % N / length * length);
  }
  Context context;
  const coca::ops::AttentionForward forward{.q = q, .k = k, .v = v, .document_start = starts, .o = o, .lse = lse};
  coca::ops::attention_forward(context, {}, forward);
  for (auto _ : state) {
    if (backward)
      coca::ops::attention_backward(context, {},
                                    {.q = q,
                                     .k = k,
                                     .v = v,
                                     .document_start = starts,
                                     .o = o,
                                     .lse = lse,
                                     .d_o = d_o,
                                     .dq = dq,
                                     .dk = dk,
                                     .dv = dv});
    else
      coca::ops::attention_forward(context, {}, forward);
  }
  count(state, backward ? 10 : 4, documents);
}
void packings(benchmark::internal::Benchmark* b) {
  for (const int64_t documents : {1, 4, 16, 64}) b->Args({1, 8192, 4, 64, documents});
  b->ArgNames({"B", "N", "H", "D", "documents"})->UseRealTime()->Unit(benchmark::kMillisecond);
}
BENCHMARK_CAPTURE(BM_Packed, forward, false)->Apply(packings);
BENCHMARK_CAPTURE(BM_Packed, backward, true)->Apply(packings);

// Args: N, window, far keys. The causal mask (window 0) is included for comparison. The work counts visible pairs.
void BM_Window(benchmark::State& state) {
  constexpr int64_t H = 4, D = 64;
  const int64_t N = state.range(0), window = state.range(1), far = state.range(2);
  Tensor q({1, N, H, D}), k({1, N, H, D}), v({1, N, H, D}), o({1, N, H, D}), far_q({1, N, H, D}), far_k({1, far, H, D});
  fill(q, 1);
  fill(k, 2);
  fill(v, 3);
  fill(far_q, 4);
  fill(far_k, 5);
  const coca::ops::AttentionOptions options{
      .mask = window > 0 ? coca::ops::Mask::kSlidingWindow : coca::ops::Mask::kCausal, .window = window};
  coca::ops::FarKeys keys;
  if (far > 0) {
    keys.q = far_q;
    keys.k = far_k;
  }
  Context context;
  for (auto _ : state) coca::ops::attention_forward(context, options, {.q = q, .k = k, .v = v, .far = keys, .o = o});
  double pairs = 0;
  for (int64_t m = 0; m < N; ++m) {
    const int64_t seen = window > 0 ? std::min(window, m + 1) : m + 1;
    pairs += static_cast<double>(seen + std::min(far, m + 1 - seen));
  }
  state.counters["GFLOP/s"] =
      benchmark::Counter(4e-9 * pairs * static_cast<double>(H * D), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(BM_Window)
    ->Args({16384, 0, 0})
    ->Args({16384, 2048, 0})
    ->Args({16384, 2044, 4})
    ->Args({16384, 2048, 100})
    ->Args({16384, 2048, 16384})
    ->ArgNames({"N", "window", "far"})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

// Args: N, window, dilation of all heads. The number of visible pairs does not depend on the dilation, so neither
// should the time.
void BM_Dilated(benchmark::State& state, bool backward) {
  constexpr int64_t H = 4, D = 64;
  const int64_t N = state.range(0), window = state.range(1), dilation = state.range(2);
  Tensor q({1, N, H, D}), k({1, N, H, D}), v({1, N, H, D}), o({1, N, H, D}), lse({1, H, N});
  Tensor d_o({1, N, H, D}), dq({1, N, H, D}), dk({1, N, H, D}), dv({1, N, H, D});
  fill(q, 1);
  fill(k, 2);
  fill(v, 3);
  fill(d_o, 4);
  const std::vector<int64_t> heads(H, dilation);
  const coca::ops::DilatedAttentionOptions options{
      .attention = {.mask = window > 0 ? coca::ops::Mask::kSlidingWindow : coca::ops::Mask::kCausal, .window = window},
      .dilation = heads};
  const coca::ops::AttentionForward forward{.q = q, .k = k, .v = v, .o = o, .lse = lse};
  Context context;
  coca::ops::dilated_attention_forward(context, options, forward);
  for (auto _ : state) {
    if (backward)
      coca::ops::dilated_attention_backward(
          context, options, {.q = q, .k = k, .v = v, .o = o, .lse = lse, .d_o = d_o, .dq = dq, .dk = dk, .dv = dv});
    else
      coca::ops::dilated_attention_forward(context, options, forward);
  }
  double pairs = 0;
  for (int64_t m = 0; m < N; ++m) pairs += static_cast<double>(window > 0 ? std::min(window, m / dilation + 1) : m + 1);
  state.counters["GFLOP/s"] = benchmark::Counter((backward ? 10e-9 : 4e-9) * pairs * static_cast<double>(H * D),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}
void dilations(benchmark::internal::Benchmark* b) {
  b->Args({16384, 0, 1})->Args({16384, 512, 1})->Args({16384, 512, 2})->Args({16384, 512, 4})->Args({16384, 512, 8});
  b->ArgNames({"N", "window", "dilation"})->UseRealTime()->Unit(benchmark::kMillisecond);
}
BENCHMARK_CAPTURE(BM_Dilated, forward, false)->Apply(dilations);
BENCHMARK_CAPTURE(BM_Dilated, backward, true)->Apply(dilations);

enum class Positions { kRope, kCocaSlack, kCocaStrict };

// Forward and backward pass of prologue and attention, as in a decoder layer.
void BM_Layer(benchmark::State& state, Positions kind) {
  const int64_t B = state.range(0), N = state.range(1), H = state.range(2), D = state.range(3);
  Tensor q({B, N, H, D}), t({B, N, H, D}), v({B, N, H, D}), d_o({B, N, H, D}), q_eff({B, N, H, D}), k_eff({B, N, H, D});
  Tensor o({B, N, H, D}), lse({B, H, N}), dq({B, N, H, D}), dt({B, N, H, D}), dv({B, N, H, D});
  fill(q, 1);
  fill(t, 2);
  fill(v, 3);
  fill(d_o, 4);
  Tensor cos({1, N, D / 2}), sin({1, N, D / 2});
  for (int64_t i = 0; i < N * D / 2; ++i) {
    const int64_t position = i / (D / 2), pair = i % (D / 2);
    const double angle =
        static_cast<double>(position) * std::pow(10000.0, -2.0 * static_cast<double>(pair) / static_cast<double>(D));
    cos.values<float>()[static_cast<size_t>(i)] = static_cast<float>(std::cos(angle));
    sin.values<float>()[static_cast<size_t>(i)] = static_cast<float>(std::sin(angle));
  }
  const coca::ops::RopeRows rows{cos.ref(), sin.ref()};
  const coca::ops::CollinearOptions options{.kind = kind == Positions::kCocaStrict ? coca::ops::Collinear::kStrict
                                                                                   : coca::ops::Collinear::kSlack};
  Context context;
  for (auto _ : state) {
    if (kind == Positions::kRope) {
      coca::ops::rope_forward(context, {.rows = rows, .x = q, .y = q_eff});
      coca::ops::rope_forward(context, {.rows = rows, .x = t, .y = k_eff});
    } else {
      coca::ops::collinear_forward(context, options, {.rows = rows, .q = q, .t = t, .q_eff = q_eff, .k_eff = k_eff});
    }
    coca::ops::attention_forward(context, {}, {.q = q_eff, .k = k_eff, .v = v, .o = o, .lse = lse});
    coca::ops::attention_backward(
        context, {}, {.q = q_eff, .k = k_eff, .v = v, .o = o, .lse = lse, .d_o = d_o, .dq = dq, .dk = dt, .dv = dv});
    if (kind == Positions::kRope) {
      coca::ops::rope_backward(context, {.rows = rows, .dy = dq, .dx = dq});
      coca::ops::rope_backward(context, {.rows = rows, .dy = dt, .dx = dt});
    } else {
      coca::ops::collinear_backward(context, options,
                                    {.rows = rows, .q = q, .t = t, .dq_eff = dq, .dk_eff = dt, .dq = dq, .dt = dt});
    }
  }
  count(state, 14);
}
void layers(benchmark::internal::Benchmark* b) {
  for (const int64_t D : {32, 48, 64, 80, 96, 128, 160, 192, 256}) b->Args({1, 2048, 512 / D, D});
  b->ArgNames({"B", "N", "H", "D"})->UseRealTime()->Unit(benchmark::kMillisecond);
}
BENCHMARK_CAPTURE(BM_Layer, rope, Positions::kRope)->Apply(layers);
BENCHMARK_CAPTURE(BM_Layer, coca_slack, Positions::kCocaSlack)->Apply(layers);
BENCHMARK_CAPTURE(BM_Layer, coca_strict, Positions::kCocaStrict)->Apply(layers);

void shapes(benchmark::internal::Benchmark* b) {
  b->Args({32, 128, 4, 32})
      ->Args({8, 512, 8, 64})
      ->Args({1, 2048, 8, 64})
      ->Args({1, 8192, 4, 64})
      ->Args({1, 2048, 4, 128});
  b->UseRealTime()->Unit(benchmark::kMillisecond);
}
BENCHMARK_CAPTURE(BM_Attention, forward, false)->Apply(shapes);
BENCHMARK_CAPTURE(BM_Attention, backward, true)->Apply(shapes);

}  // namespace

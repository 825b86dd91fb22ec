// The steps of head_modifiers beside the rotation of the same heads [B, N, H, 64], in fp32 and bf16.
// COCA_FORCE_IMPL=head_modifiers:ref measures the plain loops.
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <cstdlib>

#include "coca/base/rng.h"
#include "coca/ops/head_modifiers.h"
#include "coca/ops/rope.h"

namespace coca {
namespace {

constexpr int64_t kB = 4, kX = 64;

template <typename T>
Tensor normal_tensor(const Dims& shape, uint64_t seed) {
  Tensor t(shape, DTypeOf<T>::value);
  Rng rng(seed);
  for (T& v : t.values<T>()) v = static_cast<T>(static_cast<float>(rng.normal()));
  return t;
}

// Operands of every step. Sums go on growing from one iteration to the next, which costs the same.
template <typename T>
struct Operands {
  int64_t N, H;
  Context context;
  Tensor x, g, gate, dy, out, dg, dgate;
  Tensor phases, dphases, scale, dscale, w, dw, sink, dsink, row, lse, logits, dlogits, decay, cos, sin;

  explicit Operands(const benchmark::State& state) : N(state.range(0)), H(state.range(1)) {
    if (const char* forced = std::getenv("COCA_FORCE_IMPL"))
      for (const auto& [op, impl] : parse_forced("COCA_FORCE_IMPL", forced)) context.force_impl(op, impl);
    const Dims heads{kB, N, H, kX}, one{kB, N, H, 1};
    for (Tensor* t : {&x, &g, &dy, &out, &dg}) *t = normal_tensor<T>(heads, 1);
    for (Tensor* t : {&gate, &dgate}) *t = normal_tensor<T>(one, 2);
    for (Tensor* t : {&phases, &dphases}) *t = normal_tensor<float>({H, kX / 2}, 3);
    for (Tensor* t : {&scale, &dscale, &sink, &dsink}) *t = normal_tensor<float>({H}, 4);
    for (Tensor* t : {&w, &dw}) *t = normal_tensor<float>({H, 2}, 5);
    for (Tensor* t : {&logits, &dlogits}) *t = normal_tensor<T>({kB, N, H}, 6);
    for (Tensor* t : {&lse, &decay}) *t = normal_tensor<float>({kB, H, N}, 7);
    for (Tensor* t : {&cos, &sin}) *t = normal_tensor<float>({1, N, kX / 2}, 8);
    row = normal_tensor<float>({N}, 9);
    for (float& v : sink.values<float>()) v = -30;  // o stays as it is, call after call
  }
};

template <typename T, typename Step>
void measure(benchmark::State& state, const Step& step) {
  Operands<T> o(state);
  for (auto _ : state) step(o);
  state.counters["Gelem/s"] =
      benchmark::Counter(1e-9 * static_cast<double>(o.x.numel()), benchmark::Counter::kIsIterationInvariantRate);
}

template <typename T>
void add_steps(const std::string& type) {
  using Case = Operands<T>;
  const auto add = [&](const std::string& name, const auto& step) {
    benchmark::RegisterBenchmark((name + type).c_str(), [step](benchmark::State& state) { measure<T>(state, step); })
        ->ArgNames({"N", "H"})
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond)
        ->Args({256, 8})
        ->Args({2048, 8});
  };
  add("rope_forward", [](Case& o) { ops::rope_forward(o.context, {.rows = {o.cos, o.sin}, .x = o.x, .y = o.out}); });
  add("turn_forward", [](Case& o) { ops::turn_heads_forward(o.context, {.phases = o.phases, .x = o.x, .y = o.out}); });
  add("turn_backward", [](Case& o) {
    ops::turn_heads_backward(o.context, {.phases = o.phases, .y = o.x, .dy = o.dy, .dx = o.out, .dphases = o.dphases});
  });
  add("scale_forward",
      [](Case& o) { ops::scale_heads_forward(o.context, {.scale = o.scale, .row = o.row, .x = o.x, .y = o.out}); });
  add("scale_backward", [](Case& o) {
    ops::scale_heads_backward(o.context,
                              {.scale = o.scale, .row = o.row, .y = o.x, .dy = o.dy, .dx = o.out, .dscale = o.dscale});
  });
  add("gate_forward", [](Case& o) { ops::gate_heads_forward(o.context, {.x = o.x, .g = o.g, .y = o.out}); });
  add("gate_backward",
      [](Case& o) { ops::gate_heads_backward(o.context, {.x = o.x, .g = o.g, .dy = o.dy, .dx = o.out, .dg = o.dg}); });
  add("head_gate_forward", [](Case& o) { ops::gate_heads_forward(o.context, {.x = o.x, .g = o.gate, .y = o.out}); });
  add("head_gate_backward", [](Case& o) {
    ops::gate_heads_backward(o.context, {.x = o.x, .g = o.gate, .dy = o.dy, .dx = o.out, .dg = o.dgate});
  });
  add("mix_forward", [](Case& o) { ops::mix_heads_forward(o.context, {.w = o.w, .x = o.x, .y = o.out}); });
  add("mix_backward",
      [](Case& o) { ops::mix_heads_backward(o.context, {.w = o.w, .x = o.x, .dy = o.dy, .dx = o.out, .dw = o.dw}); });
  add("sink_forward", [](Case& o) { ops::sink_heads_forward(o.context, {.sink = o.sink, .o = o.out, .lse = o.lse}); });
  add("sink_backward", [](Case& o) {
    ops::sink_heads_backward(o.context, {.sink = o.sink, .o = o.x, .lse = o.lse, .d_o = o.dy, .dsink = o.dsink});
  });
  add("forget_forward", [](Case& o) { ops::forget_gate_forward(o.context, {.logits = o.logits, .decay = o.decay}); });
  add("forget_backward", [](Case& o) {
    ops::forget_gate_backward(o.context, {.logits = o.logits, .ddecay = o.decay, .dlogits = o.dlogits});
  });
}

[[maybe_unused]] const bool kAdded = [] {
  add_steps<float>("");
  add_steps<BF16>("_bf16");
  return true;
}();

}  // namespace
}  // namespace coca

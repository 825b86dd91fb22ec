// A whole training step (forward, backward, AdamW) of two model shapes, rope and coca-slack: tokens/s, GFLOP/s of the
// matrix products (3 x forward), and the share of the rate that a 2048^3 product reaches in the same process.
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <algorithm>

#include "coca/base/clock.h"
#include "coca/base/rng.h"
#include "coca/model/decoder.h"
#include "coca/ops/linear.h"
#include "coca/train/config.h"

namespace coca {
namespace {

double product_rate() {  // FLOP/s, the best of a few runs
  static const double rate = [] {
    constexpr int64_t n = 2048;
    Tensor x({n, n}), w({n, n}), y({n, n});
    Rng rng(1);
    for (Tensor* t : {&x, &w})
      for (float& value : t->values<float>()) value = static_cast<float>(rng.uniform() - 0.5);
    Context context;
    double best = 1e30;
    for (int i = 0; i < 5; ++i) {
      const Stopwatch watch;
      ops::linear_forward(context, {.x = x, .w = w, .y = y});
      best = std::min(best, watch.seconds());
    }
    return 2.0 * static_cast<double>(n * n * n) / best;
  }();
  return rate;
}

void matrix_product(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(product_rate());
  state.counters["GFLOP/s"] = product_rate() * 1e-9;
}
BENCHMARK(matrix_product)->Name("matrix_product_2048")->Iterations(1);

struct Shape {
  int64_t layers, width, heads, length, batch;
};

void training_step(benchmark::State& state, model::AttentionKind attention, const Shape& shape) {
  train::TrainConfig config;
  config.attention = attention;
  config.layers = shape.layers;
  config.width = shape.width;
  config.heads = shape.heads;
  config.length = shape.length;
  config.batch = shape.batch;
  const model::ModelSpec spec = train::make_spec(config, 272, std::nullopt, std::nullopt);
  model::ParamStore params(spec), grads(spec);
  model::initialise(spec, 1, params);
  optim::AdamW optimizer(spec, train::make_adamw(config));
  model::TrainingDecoder decoder(spec, shape.batch, shape.length);
  Tensor ids({shape.batch, shape.length}, DType::kI32), targets({shape.batch, shape.length}, DType::kI32);
  Rng rng(2);
  for (Tensor* t : {&ids, &targets})
    for (int32_t& id : t->values<int32_t>()) id = static_cast<int32_t>(rng.below(257));

  Context context;
  const auto tokens = static_cast<double>(shape.batch * shape.length);
  const Stopwatch watch;
  for (auto _ : state) {
    grads.zero();
    decoder.forward_backward(context, params.weights(), ids, targets, static_cast<float>(1.0 / tokens),
                             grads.tensors());
    optimizer.step(context, 1e-4, grads, params);
  }
  const double seconds = watch.seconds() / static_cast<double>(state.iterations());
  using benchmark::Counter;
  const double flop = 3.0 * tokens * model::forward_flops_per_token(spec, shape.length);
  state.counters["parameters"] = static_cast<double>(model::parameter_count(spec));
  state.counters["tokens/s"] = Counter(tokens, Counter::kIsIterationInvariantRate);
  state.counters["GFLOP/s"] = Counter(flop * 1e-9, Counter::kIsIterationInvariantRate);
  state.counters["share"] = flop / seconds / product_rate();
}

constexpr Shape kSmall{.layers = 4, .width = 128, .heads = 4, .length = 128, .batch = 32};
constexpr Shape kMedium{.layers = 8, .width = 320, .heads = 10, .length = 256, .batch = 8};
#define COCA_TRAINING_STEP(name, attention, shape)                               \
  BENCHMARK_CAPTURE(training_step, name, model::AttentionKind::attention, shape) \
      ->UseRealTime()                                                            \
      ->Unit(benchmark::kMillisecond)
COCA_TRAINING_STEP(small_rope, kRope, kSmall);
COCA_TRAINING_STEP(small_coca_slack, kCocaSlack, kSmall);
COCA_TRAINING_STEP(medium_rope, kRope, kMedium);
COCA_TRAINING_STEP(medium_coca_slack, kCocaSlack, kMedium);
#undef COCA_TRAINING_STEP

}  // namespace
}  // namespace coca

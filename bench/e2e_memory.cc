// Memory and time of a training step for each recomputation policy and precision, at length 2048 and batch 1, for the
// 10M shape (8 x 320) and the 100M shape (12 x 768, vocabulary 32,000). "activations" is the size of the arena. "peak"
// is the largest memory use of the process so far, so run one case at a time (--benchmark_filter) to measure it.
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include "coca/base/memory.h"
#include "coca/base/rng.h"
#include "coca/model/decoder.h"
#include "coca/train/config.h"

namespace coca {
namespace {

struct Shape {
  int64_t layers, width, heads, vocabulary;
};
constexpr Shape k10M{.layers = 8, .width = 320, .heads = 5, .vocabulary = 272};
constexpr Shape k100M{.layers = 12, .width = 768, .heads = 12, .vocabulary = 32000};

void step(benchmark::State& state, model::Architecture architecture, const Shape& shape,
          const model::TrainingOptions& options) {
  train::TrainConfig config;
  config.architecture = architecture;
  config.layers = shape.layers;
  config.width = shape.width;
  config.heads = shape.heads;
  config.length = 2048;
  const model::ModelSpec spec = train::make_spec(config, shape.vocabulary, std::nullopt, std::nullopt);
  model::ParamStore params(spec, options.precision), grads(spec);
  model::initialise(spec, 1, params);
  model::TrainingDecoder decoder(spec, 1, config.length, options);
  Tensor ids({1, config.length}, DType::kI32);
  Rng rng(2);
  for (int32_t& id : ids.values<int32_t>()) id = static_cast<int32_t>(rng.below(static_cast<uint64_t>(spec.V)));
  Context context;
  for (auto _ : state)
    decoder.forward_backward(context, params.weights(), ids, ids, 1.0f / static_cast<float>(config.length),
                             grads.tensors());
  constexpr double kMiB = 1048576.0;
  state.counters["parameters"] = static_cast<double>(model::parameter_count(spec));
  state.counters["activations_MiB"] = static_cast<double>(decoder.activation_bytes()) / kMiB;
  state.counters["peak_MiB"] = static_cast<double>(peak_resident_bytes()) / kMiB;
}

[[maybe_unused]] const bool kRegistered = [] {
  using model::Architecture;
  for (const auto& [size, shape] : {std::pair{"10m", k10M}, std::pair{"100m", k100M}})
    for (const auto& [architecture, kind] :
         {std::pair{"neox", Architecture::kGptNeoX}, std::pair{"llama", Architecture::kLlama}})
      for (const model::Precision precision : {model::Precision::kF32, model::Precision::kBF16})
        for (const auto recompute : {model::Recompute::kNone, model::Recompute::kAttention, model::Recompute::kLayer})
          benchmark::RegisterBenchmark(
              fmt::format("{}_{}_{}_{}", architecture, size, enum_name(precision), enum_name(recompute)).c_str(), step,
              kind, shape, model::TrainingOptions{.recompute = recompute, .precision = precision})
              ->UseRealTime()
              ->Unit(benchmark::kMillisecond);
  return true;
}();

}  // namespace
}  // namespace coca

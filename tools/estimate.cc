// SPDX-License-Identifier: Apache-2.0
#include "estimate.h"

#include <algorithm>

#include "cli.h"
#include "coca/base/clock.h"
#include "coca/base/count.h"
#include "coca/base/memory.h"
#include "coca/base/parallel.h"
#include "coca/bench/machine.h"
#include "coca/bench/model_shape.h"
#include "coca/model/decoder.h"

namespace coca::tools {

namespace {

constexpr int64_t kMeasuredParameters = 50'000'000, kMeasuredLength = 256;
constexpr double kMeasuredFlops = 1e11;                            // per run: about a second on a slow machine
constexpr double kLeastSeconds = 0.3, kShareOfLargeModels = 0.75;  // bench/README.md derives the share

// Runs once to warm up, then repeatedly until the time is up. Returns the seconds per run.
template <typename Run>
double seconds_of_run(const Run& run) {
  run();
  const Stopwatch watch;
  int64_t runs = 0;
  do {
    run();
    ++runs;
  } while (watch.seconds() < kLeastSeconds);
  return watch.seconds() / static_cast<double>(runs);
}

int64_t weight_bytes(const model::ModelSpec& spec, model::Precision precision) {
  int64_t bytes = 0;
  for (const model::ParamInfo& info : model::parameter_list(spec))
    bytes += info.shape.product() * static_cast<int64_t>(dtype_size(model::param_dtype(info.role, precision)));
  return bytes;
}

bool is_measured(const model::ModelSpec& spec) { return model::parameter_count(spec) <= kMeasuredParameters; }

}  // namespace

Measured measured_windows(const Work& work) {
  const auto flops = [&](int64_t length) {
    return 3 * static_cast<double>(length) * model::forward_flops_per_token(work.spec, length);
  };
  Measured m{.length = std::max<int64_t>(2, work.length)};
  if (flops(m.length) > kMeasuredFlops) m.length = std::min(m.length, kMeasuredLength);
  m.batch =
      std::clamp(static_cast<int64_t>(kMeasuredFlops / flops(m.length)), int64_t{1}, std::max<int64_t>(1, work.batch));
  return m;
}

double measured_rate(const Work& work, Pass pass) {
  Context cx;
  const model::ModelSpec& spec = work.spec;
  if (!is_measured(spec)) {
    bench::MatrixProduct product(cx, dtype_of(work.precision));
    const bench::Contestant contestant = product.contestant();
    return kShareOfLargeModels * 1e9 * bench::MatrixProduct::gflops(bench::summarise({seconds_of_run(contestant.run)}));
  }
  const auto [B, N] = measured_windows(work);
  const std::vector<int32_t> ids = bench::random_ids(B * N, spec.V, 1);
  const TensorRef windows(ids.data(), DType::kI32, {B, N}, kHost);
  const model::ParamStore params = bench::random_params(spec, work.precision, cx.memory());
  const double forward = static_cast<double>(B * N) * model::forward_flops_per_token(spec, N);
  if (pass == Pass::kForward) {
    model::Decoder decoder(spec, params.weights());
    return forward / seconds_of_run([&] {
             decoder.forward(cx, windows);
             cx.synchronize();
           });
  }
  model::ParamStore grads(spec, model::Precision::kF32, cx.memory());
  model::TrainingDecoder decoder(spec, B, N,
                                 {.recompute = work.recompute, .precision = work.precision, .memory = cx.memory()});
  return 3 * forward / seconds_of_run([&] {
           decoder.forward_backward(cx, params.weights(), windows, windows, 1, grads.tensors());
           cx.synchronize();
         });
}

double seconds_of(const Work& work) {
  double seconds = 0;
  for (const Pass pass : {Pass::kForward, Pass::kTraining}) {
    double flops = 0;
    for (const Part& part : work.parts) flops += part.pass == pass ? part.flops : 0;
    if (flops > 0) seconds += flops / measured_rate(work, pass);
  }
  return seconds;
}

double print_work(const Work& work) {
  const int64_t before = peak_resident_bytes();  // program, tokenizer and data; read before the speed is measured
  report::Table table{.title = "", .header = {"", "tokens", "operations", "time"}, .rows = {}, .align = {}};
  double rates[2] = {}, all = 0;
  for (const Part& part : work.parts) {
    double& rate = rates[static_cast<size_t>(part.pass)];
    if (rate == 0) rate = measured_rate(work, part.pass);
    all += part.flops / rate;
    table.rows.push_back({part.name, grouped(part.tokens), fmt::format("{:.2e}", part.flops),
                          report::format_duration(part.flops / rate)});
  }
  if (work.parts.size() > 1) table.rows.push_back({"all", "", "", report::format_duration(all)});
  print(table_text(table));
  const Measured m = measured_windows(work);
  std::string speed;
  for (const double rate : rates)
    if (rate > 0)
      speed += fmt::format("{}{} GFLOP/s", speed.empty() ? "" : " and ", report::format_number(rate * 1e-9, 3));
  print_prose(
      fmt::format("\ntime: about, at {} with {}, {}\nmemory: about {}\n", speed, counted(max_threads(), "thread"),
                  is_measured(work.spec) ? fmt::format("measured just now on a model of this shape and {} of {}",
                                                       counted(m.batch, "window"), counted(m.length, "token"))
                                         : "three quarters of this machine's matrix rate",
                  report::format_bytes(before + work.memory)));
  if (work.disk > 0) print_prose(fmt::format("disk: about {}\n", report::format_bytes(work.disk)));
  return all;
}

int end_dry_run() {
  print("dry run: nothing else was computed, nothing was written\n");
  return 0;
}

TrainingMemory training_memory_parts(const Work& work, int64_t trained_parameters) {
  const auto activations = [&](int64_t batch) {
    return static_cast<int64_t>(model::TrainingDecoder::activation_bytes(
        work.spec, batch, work.length, {.recompute = work.recompute, .precision = work.precision}));
  };
  const int64_t one = activations(1);
  return {.weights = 4 * model::parameter_count(work.spec),
          .copy = work.precision == model::Precision::kF32 ? 0 : weight_bytes(work.spec, work.precision),
          .gradients = 4 * trained_parameters,
          .moments = 8 * trained_parameters,
          .activations = one + (work.batch - 1) * (activations(2) - one)};
}

int64_t training_disk(int64_t parameters, int64_t checkpoints) {
  return 4 * parameters + checkpoints * 12 * parameters;
}

int64_t evaluation_memory(const model::ModelSpec& spec, model::Precision precision, int64_t batch_tokens,
                          int64_t length) {
  return weight_bytes(spec, precision) +
         static_cast<int64_t>(model::Decoder::activation_bytes(
             spec, std::max<int64_t>(1, batch_tokens / std::max<int64_t>(1, length)), length, precision));
}

}  // namespace coca::tools

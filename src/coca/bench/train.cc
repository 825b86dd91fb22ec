// SPDX-License-Identifier: Apache-2.0
#include "coca/bench/train.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "coca/base/count.h"
#include "coca/base/sizes.h"
#include "coca/bench/answers.h"
#include "coca/bench/machine.h"
#include "coca/formats/model_folder.h"
#include "coca/io/fs.h"
#include "coca/io/safetensors.h"
#include "coca/model/decoder.h"
#include "coca/ops/linear.h"
#include "coca/optim/optimizer.h"
#include "coca/tensor/transfer.h"

namespace coca::bench {

namespace {

using model::AttentionKind;

constexpr int64_t kCheckBatch = 2, kCheckLength = 33;

// A model with its gradients, and one batch of random ids for both input and target.
struct Batch {
  Batch(const model::ModelSpec& s, int64_t batch, int64_t length, const model::TrainingOptions& options)
      : spec(s),
        B(batch),
        N(length),
        ids(random_ids(B * N, s.V, 2)),
        targets(random_ids(B * N, s.V, 3)),
        params(random_params(spec, Precision::kF32, options.memory)),
        grads(spec, Precision::kF32, options.memory),
        decoder(spec, B, N, options) {
    if (options.precision == Precision::kF32) return;
    Context cx(options.memory);
    copy = std::make_unique<model::ParamStore>(spec, options.precision, options.memory);
    model::copy_params(cx, params, *copy);
  }
  Batch(const Batch&) = delete;

  // The nll of every token; gradients of scale times their sum.
  TensorRef forward_backward(Context& cx, float scale) {
    grads.zero();
    return decoder.forward_backward(cx, (copy ? *copy : params).weights(), ids_ref(), targets_ref(), scale,
                                    grads.tensors());
  }
  TensorRef ids_ref() const { return {ids.data(), DType::kI32, {B, N}, kHost}; }
  TensorRef targets_ref() const { return {targets.data(), DType::kI32, {B, N}, kHost}; }

  model::ModelSpec spec;
  int64_t B, N;
  std::vector<int32_t> ids, targets;
  model::ParamStore params, grads;
  std::unique_ptr<model::ParamStore> copy;  // the weights in bf16
  model::TrainingDecoder decoder;
};

struct TrainCase {
  TrainCase(Context& context, const model::ModelSpec& spec, const Window& window, const model::TrainingOptions& options)
      : cx(context),
        batch(spec, window.batch, window.length, options),
        optimizer(batch.params.infos(), {}, options.memory) {}

  void step() {
    batch.forward_backward(cx, 1.0f / static_cast<float>(batch.B * batch.N));
    optimizer.step(cx, 1e-4, batch.grads, batch.params, batch.copy.get());
    cx.synchronize();
  }

  Context& cx;
  Batch batch;
  optim::AdamW optimizer;
};

model::TrainingOptions training_options(Context& cx, const TrainOptions& o) {
  return {.recompute = o.recompute, .precision = o.precision, .memory = cx.memory()};
}

Window window_of(const TrainOptions& o) {
  const Window preset = preset_window(o.shape.preset);
  COCA_CHECK(o.length >= 0, "length is {}; expected 0 (the preset's) or more", o.length);
  COCA_CHECK(o.batch >= 0, "batch is {}; expected 0 (the preset's) or more", o.batch);
  return {.length = o.length > 0 ? o.length : preset.length, .batch = o.batch > 0 ? o.batch : preset.batch};
}

void check_answer(Context& cx, const TrainOptions& o, AttentionKind kind) {
  const model::ModelSpec spec = make_check_spec(o.shape, kind, kCheckLength);
  Batch actual(spec, kCheckBatch, kCheckLength, training_options(cx, o)), expected(spec, kCheckBatch, kCheckLength, {});
  Context plain = reference_context();
  const TensorRef nll = actual.forward_backward(cx, 1), nll_expected = expected.forward_backward(plain, 1);
  check_close(nll, nll_expected, o.precision, model_roundings(o.precision), fmt::format("nll of {}", enum_name(kind)));
  check_close(actual.grads.flat(), expected.grads.flat(), o.precision, model_roundings(o.precision),
              fmt::format("the gradients of {}", enum_name(kind)));
}

}  // namespace

std::vector<TrainResult> bench_train(Context& cx, const TrainOptions& o, ProgressCounter progress) {
  check_repeats(o.repeat);
  const std::vector<AttentionKind> kinds = kinds_of(o.kind, o.against);
  const Window window = window_of(o);
  for (const AttentionKind kind : kinds) {  // what is wrong shows before anything is said
    const model::ModelSpec spec = make_spec(o.shape, kind, window.length);
    check_memory(
        "a step",
        {{"batch", window.batch}, {"length", window.length}, {"width", spec.C}, {"layers", spec.L}, {"bytes", 4}},
        "lower one of these");
  }
  progress.plan(planned_steps(static_cast<int64_t>(kinds.size()) + 1, o.repeat), 1);
  for (const AttentionKind kind : kinds) {
    progress.begin(fmt::format("checking {} against the plain loops", enum_name(kind)));
    check_answer(cx, o, kind);
  }

  std::vector<std::unique_ptr<TrainCase>> cases;
  std::vector<Contestant> contestants;
  for (const AttentionKind kind : kinds) {
    progress.begin(fmt::format("making a {} model of {}", enum_name(kind),
                               counted(model::parameter_count(make_spec(o.shape, kind, window.length)), "parameter")));
    TrainCase& c = *cases.emplace_back(
        std::make_unique<TrainCase>(cx, make_spec(o.shape, kind, window.length), window, training_options(cx, o)));
    contestants.push_back({std::string(enum_name(kind)), [&c] { c.step(); }});
  }
  MatrixProduct product(cx, dtype_of(o.precision));
  contestants.push_back(product.contestant());
  const std::vector<Timing> timings = measure_interleaved(contestants, o.repeat, progress);

  std::vector<TrainResult> results;
  for (size_t i = 0; i < kinds.size(); ++i) {
    const Batch& b = cases[i]->batch;
    const auto tokens = static_cast<double>(b.B * b.N);
    const double flop = 3 * tokens * model::forward_flops_per_token(b.spec, b.N);
    TrainResult r{
        .kind = kinds[i],
        .length = b.N,
        .batch = b.B,
        .parameters = model::parameter_count(b.spec),
        .seconds = timings[i],
        .tokens_per_second = tokens / timings[i].median,
        .gflops = 1e-9 * flop / timings[i].median,
        .matrix_gflops = MatrixProduct::gflops(timings.back()),
        .state_bytes = static_cast<int64_t>(4 * b.params.flat().bytes() + (b.copy ? b.copy->flat().bytes() : 0)),
        .activation_bytes = static_cast<int64_t>(b.decoder.activation_bytes())};
    if (o.against) r.ratio = ratio_of(timings[i], timings[0]);
    results.push_back(std::move(r));
  }
  return results;
}

report::Table train_table(const TrainOptions& o, const std::vector<TrainResult>& results) {
  report::Table table{.title = "",
                      .header = {"attention", "parameters", "length", "batch", "ms/step", "+-", "tokens/s", "GFLOP/s",
                                 "of matrix rate", "state", "activations"},
                      .rows = {},
                      .align = {}};
  if (o.against) table.header.push_back(fmt::format("x {}", enum_name(*o.against)));
  for (const TrainResult& r : results) {
    table.rows.push_back({std::string(enum_name(r.kind)), grouped(r.parameters), fmt::format("{}", r.length),
                          fmt::format("{}", r.batch), report::format_number(1e3 * r.seconds.median),
                          r.seconds.spread_text(), grouped(static_cast<int64_t>(r.tokens_per_second)),
                          report::format_number(r.gflops), fmt::format("{:.1f} %", 100 * r.gflops / r.matrix_gflops),
                          report::format_bytes(r.state_bytes), report::format_bytes(r.activation_bytes)});
    if (r.ratio) table.rows.back().push_back(fmt::format("{:.3f}", r.ratio->median));
  }
  return table;
}

nlohmann::ordered_json to_json(const TrainResult& r) {
  nlohmann::ordered_json j;
  j["attention"] = std::string(enum_name(r.kind));
  j["length"] = r.length;
  j["batch"] = r.batch;
  j["parameters"] = r.parameters;
  add_timing(j, "seconds", r.seconds);
  j["tokens_per_second"] = r.tokens_per_second;
  add_rates(j, r.gflops, r.matrix_gflops);
  j["state_bytes"] = r.state_bytes;
  j["activation_bytes"] = r.activation_bytes;
  add_ratio(j, r.ratio);
  return j;
}

void export_models(Context& cx, const TrainOptions& o) {
  const int64_t N = std::min<int64_t>(64, window_of(o).length);
  for (const AttentionKind kind : kinds_of(o.kind, o.against)) {
    const model::ModelSpec spec = make_spec(o.shape, kind, window_of(o).length);
    const std::filesystem::path dir = std::filesystem::path(o.export_to) / enum_name(kind);
    io::make_dirs(dir);
    Batch batch(spec, kCheckBatch, N, {.memory = cx.memory()});
    formats::save_model(dir, spec, random_params(spec));
    model::Decoder decoder(batch.spec, batch.params.weights());
    Tensor logits({kCheckBatch, N, spec.V}, DType::kF32, cx.memory());
    ops::linear_forward(cx, {.x = decoder.forward(cx, batch.ids_ref()),
                             .w = batch.params.weights().head,
                             .y = logits.ref().reshape({kCheckBatch * N, spec.V})});
    const Tensor nll = to_host(cx, batch.forward_backward(cx, 1)), logits_here = to_host(cx, logits);
    batch.grads.move_to(nullptr);
    std::vector<io::TensorToSave> tensors = {{"ids", batch.ids_ref()},
                                             {"targets", batch.targets_ref()},
                                             {"logits", logits_here},
                                             {"nll", nll.ref().reshape({kCheckBatch, N})}};
    for (const model::ParamInfo& info : batch.grads.infos())
      tensors.push_back({"grad." + info.name, batch.grads.at(info)});
    io::save_safetensors(dir / "check.safetensors", tensors);
  }
}

}  // namespace coca::bench

// coca/bench/train.h - `coca bench train`: whole optimizer steps (forward, backward, AdamW) of a random model
// on random tokens: tokens/s, the share of the matrix rate, and the memory they take.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "coca/bench/model_shape.h"
#include "coca/bench/timing.h"
#include "coca/model/decoder.h"
#include "coca/report/table.h"
#include "coca/tensor/context.h"

namespace coca::bench {

struct TrainOptions {
  std::vector<model::AttentionKind> kind = {model::AttentionKind::kCocaSlack};
  std::optional<model::AttentionKind> against;
  ModelShape shape;
  int64_t length = 0, batch = 0;
  model::Precision precision = model::Precision::kF32;
  model::Recompute recompute = model::Recompute::kNone;
  RepeatOptions repeat;
  std::string export_to;

  template <class V>
  void visit(V&& v) {
    v.group("What");
    v("attention", "attention of the models to time", kind);
    v("against", "time this one too, in turns, and print the others' times divided by its time", against);
    shape.visit(v);
    v.group("Step");
    v("length", "tokens per window; default: the preset's", length);
    v("batch", "windows per step; default: the preset's", batch);
    v("precision", "type of matrices and activations; bf16 keeps fp32 master weights and optimizer state", precision);
    v("recompute", "activations to recompute instead of keeping: less memory, the same results", recompute);
    repeat.visit(v);
    v.group("Output");
    v("export", "write each model, and its logits and gradients on a few tokens, below this folder (bench/peers)",
      export_to);
  }
};

struct TrainResult {
  model::AttentionKind kind = model::AttentionKind::kRope;
  int64_t length = 0, batch = 0, parameters = 0;
  Timing seconds;                                               // of one step
  double tokens_per_second = 0, gflops = 0, matrix_gflops = 0;  // matrix products, 3 x forward
  int64_t state_bytes = 0,
          activation_bytes = 0;  // weights, gradients and moments; what forward keeps for backward
  std::optional<Timing> ratio;
};

// Before timing, loss and gradients of a small model of each kind are compared with the plain loops.
std::vector<TrainResult> bench_train(Context&, const TrainOptions&, ProgressCounter);
report::Table train_table(const TrainOptions&, const std::vector<TrainResult>&);
nlohmann::ordered_json to_json(const TrainResult&);

// Writes <export_to>/<kind>/: config.json, model.safetensors, and check.safetensors with ids, targets,
// logits, nll and grad.<name> of the sum of nll over the tokens.
void export_models(Context&, const TrainOptions&);

}  // namespace coca::bench

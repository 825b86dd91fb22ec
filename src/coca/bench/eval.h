// coca/bench/eval.h - `coca bench eval`: the perplexity of one window of random tokens under a random model,
// as `coca eval ppl` runs it: tokens/s and peak resident memory by length.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <vector>

#include "coca/base/sizes.h"
#include "coca/bench/model_shape.h"
#include "coca/bench/timing.h"
#include "coca/report/table.h"
#include "coca/tensor/context.h"

namespace coca::bench {

struct EvalOptions {
  std::vector<model::AttentionKind> kind = {model::AttentionKind::kCocaSlack};
  std::optional<model::AttentionKind> against;
  std::vector<int64_t> lengths = {1024, 2048, 4096, 8192};
  ModelShape shape;
  model::Precision precision = model::Precision::kF32;
  RepeatOptions repeat{.repeats = 3, .warmup = 0};  // the run that measures memory warms up

  template <class V>
  void visit(V&& v) {
    v.group("What");
    v("attention", "attention of the models to run", kind);
    v("against", "run this one too, in turns, and print the others' times divided by its time", against);
    v("lengths", "tokens of the one window", lengths, Least{2});
    shape.visit(v);
    v("precision", "of matrices and activations; statistics and sums are fp32", precision);
    repeat.visit(v);
  }
};

struct EvalResult {
  int64_t length = 0;
  model::AttentionKind kind = model::AttentionKind::kRope;
  int64_t parameters = 0;
  Timing seconds;  // of the window, its loss included
  double tokens_per_second = 0, gflops = 0, matrix_gflops = 0;
  int64_t weight_bytes = 0;
  // Of the process while this length ran, weights included; since the start where the mark cannot be reset.
  int64_t peak_resident_bytes = 0;
  std::optional<Timing> ratio;
};

// Before timing, a small model of each kind is compared with the plain loops.
std::vector<EvalResult> bench_eval(Context&, const EvalOptions&, ProgressCounter);
report::Table eval_table(const EvalOptions&, const std::vector<EvalResult>&);
nlohmann::ordered_json to_json(const EvalResult&);

}  // namespace coca::bench

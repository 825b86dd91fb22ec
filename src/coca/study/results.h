// coca/study/results.h - the results of a study, as plain data with JSON and CSV forms.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "coca/data/overlap.h"
#include "coca/study/config.h"
#include "coca/study/seeds.h"
#include "coca/train/metrics.h"

namespace coca::study {

struct PerplexityPoint {
  int64_t length = 0, scored_tokens = 0;
  double perplexity = 0, nll = 0, standard_error = 0;
  bool reached = true;  // false: no test document was as long as the window
};

struct PasskeyPoint {
  int64_t length = 0, trials = 0, correct = 0;
  double accuracy = 0, low = 0, high = 1, digit_accuracy = 0;
};

// One model under one position scaling at evaluation.
struct Evaluation {
  std::string variant;  // "" or "ntk4"
  std::vector<PerplexityPoint> perplexity;
  std::vector<PasskeyPoint> passkey;
};

struct RunResult {
  std::string method;
  int64_t seed = 0;
  std::string failure;  // why its training was given up and nothing was evaluated; empty: it was not given up
  int64_t parameters = 0, steps = 0, tokens = 0, skipped = 0;
  double train_loss = 0, validation_loss = 0, seconds = 0, tokens_per_second = 0;
  std::vector<Evaluation> evaluations;
  std::vector<train::MetricsRow> curve;  // not in the JSON: it is in the run's metrics.csv
};

struct StudyResults {
  StudyConfig config;
  std::string corpus, machine;
  data::Overlap shared;  // of training and test text
  std::vector<RunResult> runs;
  double seconds = 0;
};

std::string variant_name(const std::string& method, const std::string& variant);  // "rope + dynamic NTK 4"

// A method under a scaling, over its seeds.
struct SummaryPoint {
  int64_t length = 0;
  SeedMean perplexity, passkey_accuracy, passkey_digits;  // the passkey's have n = 0 if it was not measured
};
struct SummaryLine {
  std::string method, variant;
  size_t method_index = 0;  // in the config
  std::vector<SummaryPoint> points;

  std::string name() const { return variant_name(method, variant); }
};
// Plain models first, then scaled ones; within each, in the order of the methods.
std::vector<SummaryLine> summarise(const StudyResults&);

nlohmann::ordered_json to_json(const RunResult&);
RunResult run_from_json(const nlohmann::json&, const std::string& where);
nlohmann::ordered_json to_json(StudyResults&);
// One row per (method, variant, seed, length): perplexity and passkey side by side.
std::string to_csv(const StudyResults&);
// One row per (method, variant, length): n, mean, deviation and interval over the seeds.
std::string summary_csv(const StudyResults&);

}  // namespace coca::study

// coca/analyse/induction_results.h - what heads do for copying, of one model or of the checkpoints of a training:
// tables, JSON, and a document with a chart against steps. docs/analyse.md says what each figure is.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "coca/analyse/analyse.h"
#include "coca/report/chart.h"
#include "coca/report/document.h"

namespace coca::analyse {

// Both with AnalyseOptions::slow_turn.
struct InductionAnalysis {
  std::optional<int64_t> step;  // of a checkpoint
  Analysis random;              // windows that repeat a sequence of random tokens
  std::optional<Analysis> text;
  double slow_turn = 0;
};

// What the score of one head can tell apart. NaN where a model has nothing of the kind.
struct HeadReach {
  double channels = 0, most_channels = 0;  // effective, and what the form allows
  double slow_share = 0, contrast = 0;     // of the score's variance; standard deviation of scores over keys
  DistanceChoice distance;                 // by position alone, as the head is
  double sharpest = 0;                     // share of the best distance if all planes had their peak there
};
HeadReach head_reach(const InductionAnalysis&, int64_t layer, int64_t head);

std::string what_was_read(const InductionAnalysis&);  // windows, even attention, slow planes: sentences
report::Table head_table(const InductionAnalysis&);   // of large models the heads that do most
report::Table step_table(const std::vector<InductionAnalysis>&);
// "heads": one flat object for each checkpoint, layer and head.
nlohmann::ordered_json to_json(const std::vector<InductionAnalysis>&);
report::Chart step_chart(const std::vector<InductionAnalysis>&);  // the largest scores of any head against steps
report::Document make_document(const std::vector<InductionAnalysis>&, const std::string& title,
                               const std::string& source);

}  // namespace coca::analyse

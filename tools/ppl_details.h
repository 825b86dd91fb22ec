// tools/ppl_details.h - what coca eval ppl shows beside the perplexity of each length: LongPPL over key tokens, the
// loss by position in the window, and documents. docs/evaluation.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "coca/eval/key_tokens.h"
#include "coca/report/table.h"
#include "eval_command.h"
#include "text_documents.h"

namespace coca::tools {

struct PplDetailFlags {
  bool key_tokens = false, by_position = false;
  std::string evaluator, position_csv, position_plot;
  std::optional<int64_t> key_long, key_short;
  double key_gain = eval::KeyTokenRule{}.gain, key_least = eval::KeyTokenRule{}.least;

  template <class V>
  void visit(V&& v) {
    v.group("Key tokens (LongPPL)");
    v("key_tokens",
      "also the perplexity over key tokens: those that a long context predicts well, a short one does not", key_tokens);
    v("evaluator",
      "model folder that decides which tokens are key tokens, for all models; default: the (first) --model itself",
      evaluator);
    v("key_long", "tokens of the long context; default: the evaluator's trained length", key_long);
    v("key_short", "tokens of the short context; default: an eighth of --key-long", key_short);
    v("key_gain", "log p(long) - log p(short) of a key token is greater than this", key_gain);
    v("key_least", "log p(long) of a key token is greater than this", key_least, Least{-1000});
  }
  template <class V>
  void visit_outputs(V&& v) {
    v("by_position", "print the mean nll by position in the longest window too", by_position);
    v("position_csv", "write one row per length and range of positions to this file", position_csv);
    v("position_plot", "draw the nll by position in the longest window into this SVG file (needs gnuplot)",
      position_plot);
  }

  bool wants_positions() const { return by_position || !position_csv.empty() || !position_plot.empty(); }
};
void check_details(const PplDetailFlags&);

using Results = std::vector<eval::PerplexityResult>;

// The key tokens, and who found them by which rule (none: not wanted).
struct FoundKeys {
  eval::KeyTokens tokens;
  std::optional<eval::KeyTokenRule> rule;
  std::string evaluator;
};
// A model that finds key tokens, before its weights are loaded.
struct Evaluator {
  ModelFlags flags;
  ModelShape shape;
  eval::KeyTokenRule rule;

  // The work, with the errors of find().
  std::vector<Part> parts(const Documents&, const eval::PerplexityOptions&) const;
  FoundKeys find(const Documents&, eval::PerplexityOptions);
};
Evaluator load_evaluator(ModelFlags, const PplDetailFlags&);
Part ppl_part(const model::ModelSpec&, const eval::PerplexityResult& planned);

// A model and its results, for tables.
struct DetailedModel {
  std::string name, method;  // name: empty where there is one model
  int64_t trained_length = 0;
  const Results* results = nullptr;
};
void print_details(const PplDetailFlags&, const FoundKeys&, const std::vector<DetailedModel>&);
// --position-csv and --position-plot. json: has the list "positions".
void write_positions(const PplDetailFlags&, const nlohmann::ordered_json& json, const std::vector<DetailedModel>&,
                     const Measurement&);

nlohmann::ordered_json keys_json(const FoundKeys&);
void add_key_tokens(nlohmann::ordered_json& row, const eval::PerplexityResult&);  // columns, if key tokens were wanted
nlohmann::ordered_json positions_json(const Results&);
// One flat object per length and document, with the book's title and year if a list gives them.
nlohmann::ordered_json documents_json(const Results&, const Documents&);
report::Table documents_table(const nlohmann::ordered_json& documents);

}  // namespace coca::tools

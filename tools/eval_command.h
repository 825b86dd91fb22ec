// tools/eval_command.h - shared by the subcommands that evaluate a model: output flags, the model's lines and JSON,
// registration.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cli.h"
#include "estimate.h"
#include "model_flags.h"
#include "output_flags.h"

namespace coca::tools {

struct EvalOutputFlags : OutputFlags {
  std::string plot;

  template <class V>
  void visit(V&& v) {
    OutputFlags::visit(v);
    v("plot", "draw the results into this SVG file (needs gnuplot)", plot);
  }
};

// A measurement that may end early because of an interrupt or an error. Results completed by then are printed and
// written as usual but marked as partial, and then the error is rethrown:
//
//   std::vector<Result> results;
//   Measurement measurement([&] { measure(..., results); });
//   if (results.empty()) measurement.rethrow();
//   measurement.missing = ...;  // what was not done
//   return measurement.report([&] { print and write results; });
class Measurement {
 public:
  explicit Measurement(const std::function<void()>& work);  // runs it

  bool partial() const { return error_ != nullptr; }
  std::vector<std::string> missing;  // what a partial result lacks: "length 4096"

  void mark(nlohmann::ordered_json&) const;   // adds "partial": true, "missing" and "ended_by" to a partial result
  std::string title(std::string text) const;  // appends " (partial)" to a chart's title if it applies
  std::string line() const;                   // to print under the tables; "" for a complete result
  // Records a perplexity and what it is of. If it is not finite, report() warns and returns kExitFailed.
  void check(double perplexity, const std::string& of);
  // The same for the accuracy or score of a length, which is NaN where the model's numbers are not finite.
  void check_score(double score, int64_t length);
  // Reports the results, then rethrows the error of the measurement, if any. An error while reporting a partial result
  // is only logged.
  int report(const std::function<void()>& print_and_write) const;
  void rethrow() const;

 private:
  std::exception_ptr error_;
  std::string reason_;
  std::string unmeasured_;           // set by check()
  std::vector<int64_t> not_finite_;  // lengths, set by check_score()
};

void check_outputs(const EvalOutputFlags&);
void write_outputs(const EvalOutputFlags&, const nlohmann::ordered_json& json, const char* results,
                   const std::function<std::string()>& svg);

// The share of the work that is done, given that a token or prompt costs more at greater lengths.
class WorkShare {
 public:
  explicit WorkShare(const std::vector<Part>& parts);  // one part for each length
  double at(int64_t length, int64_t done);  // done: units completed so far, at all lengths; length: that of the latest

 private:
  std::map<int64_t, double> cost_;  // per unit, by length
  double total_ = 0, sum_ = 0;
  int64_t done_ = 0;
};

// One part for each length, with this many prompts of that many tokens.
std::vector<Part> prompt_parts(const model::ModelSpec&, const std::vector<int64_t>& lengths, int64_t prompts_of_each);
// Prints the --dry-run estimate for one model, except for the last line. Returns the seconds.
double print_eval_work(const ModelFlags&, const model::ModelSpec&, const std::vector<Part>&, int64_t batch_tokens);

nlohmann::ordered_json header_json(const std::string& dir, const LoadedModel&, nlohmann::ordered_json options);
void print_model_line(const std::string& dir, const LoadedModel&);
// Without scaling, rotary models break down beyond the trained length. That is not an error, so it is only a note.
// name: of the model if there are several. The text is "" where there is nothing to note.
std::string extrapolation_text(const LoadedModel&, int64_t longest, const std::string& name = "");
void note_extrapolation(const LoadedModel&, const std::vector<int64_t>& lengths, const std::string& name = "");
// "coca-slack", "rope (dynamic x4)", "rope (streaming-llm, window 252, 4 sinks)", for charts.
std::string method_text(const LoadedModel&);
std::string bos_text(std::optional<int32_t> bos, const char* with, const char* without);

void add_eval_ppl(CLI::App& eval_app, Action*);
void add_eval_mlm(CLI::App& eval_app, Action*);
void add_eval_passkey(CLI::App& eval_app, Action*);
void add_eval_stream(CLI::App& eval_app, Action*);
void add_eval_recall(CLI::App& eval_app, Action*);
void add_eval_ruler(CLI::App& eval_app, Action*);

}  // namespace coca::tools

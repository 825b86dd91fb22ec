// tools/eval_command.h - what the subcommands that measure a model share: output flags, the model's lines and JSON,
// registering.
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

// A measurement that may end early, because it was asked to stop or because of an error. What was finished until then
// is printed and written like a whole result, marked as partial, and the error goes on from there:
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
  std::vector<std::string> missing;  // "length 4096", of a partial result

  void mark(nlohmann::ordered_json&) const;   // "partial": true, "missing", "ended_by"; nothing of a whole one
  std::string title(std::string text) const;  // of a chart: " (partial)" behind it
  std::string line() const;                   // to print under the tables; "" of a whole one
  // A perplexity, and what it is of. One that is not finite makes report() warn and return kExitFailed.
  void check(double perplexity, const std::string& of);
  // Reports, and then throws the error where there was one; one in the report of a partial result is logged.
  int report(const std::function<void()>& print_and_write) const;
  void rethrow() const;

 private:
  std::exception_ptr error_;
  std::string reason_;
  std::string unmeasured_;  // what check() found
};

void check_outputs(const EvalOutputFlags&);
void write_outputs(const EvalOutputFlags&, const nlohmann::ordered_json& json, const char* results,
                   const std::function<std::string()>& svg);

// The share of the work that is done, where a token or a prompt costs more at greater lengths.
class WorkShare {
 public:
  explicit WorkShare(const std::vector<Part>& parts);  // one for each length
  double at(int64_t length, int64_t done);             // units in all, of any length; the last were of this one

 private:
  std::map<int64_t, double> cost_;  // of a unit
  double total_ = 0, sum_ = 0;
  int64_t done_ = 0;
};

// So many prompts of each length, that many tokens each.
std::vector<Part> prompt_parts(const model::ModelSpec&, const std::vector<int64_t>& lengths, int64_t prompts_of_each);
// What --dry-run prints of one model, but for the last line; its time in seconds.
double print_eval_work(const ModelFlags&, const model::ModelSpec&, const std::vector<Part>&, int64_t batch_tokens);

nlohmann::ordered_json header_json(const std::string& dir, const LoadedModel&, nlohmann::ordered_json options);
void print_model_line(const std::string& dir, const LoadedModel&);
// Beyond the trained length rotary models break down without scaling; that is no error, but it should be known.
void note_extrapolation(const LoadedModel&, const std::vector<int64_t>& lengths);
std::string bos_text(std::optional<int32_t> bos, const char* with, const char* without);

void add_eval_ppl(CLI::App& eval_app, Action*);
void add_eval_mlm(CLI::App& eval_app, Action*);
void add_eval_passkey(CLI::App& eval_app, Action*);
void add_eval_stream(CLI::App& eval_app, Action*);
void add_eval_ruler(CLI::App& eval_app, Action*);

}  // namespace coca::tools

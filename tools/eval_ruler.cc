// coca eval ruler: RULER's synthetic tasks by length. Protocol: docs/evaluation.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/base/count.h"
#include "coca/eval/ruler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>

#include "coca/data/corpus.h"
#include "coca/io/fs.h"
#include "coca/report/chart.h"
#include "coca/report/table.h"
#include "eval_command.h"
#include "ranks.h"

namespace coca::tools {

namespace {

using nlohmann::ordered_json;

struct RulerFlags : ModelFlags {
  std::vector<std::string> tasks = {"niah_single_1",
                                    "niah_single_3",
                                    "niah_multikey_1",
                                    "niah_multikey_2",
                                    "niah_multikey_3",
                                    "niah_multivalue",
                                    "niah_multiquery",
                                    "vt",
                                    "cwe",
                                    "fwe"};
  std::vector<int64_t> lengths;
  int64_t samples = 50, seed = 42;
  bool dry_run = false;
  std::vector<std::string> text;
  eval::Bos bos = eval::Bos::kAuto;
  std::string predictions;
  EvalOutputFlags output;

  template <class V>
  void visit(V&& v) {
    static const std::string tasks_help = "of " + enum_choices<data::RulerTask>();
    ModelFlags::visit(v);
    v.group("Protocol");
    v("tasks", tasks_help, tasks);
    v("lengths",
      "tokens of bos, prompt and generated text together; default: 1, 2, 4 and 8 times the trained length, or the "
      "first of its doublings into which the prompts fit",
      lengths, Least{1});
    v("samples", "prompts per task and length; RULER takes 500", samples, Least{1});
    v("seed", "seed of the prompts; the same seed gives the same prompts", seed);
    v("text", "files or folders for the tasks that hide needles in essays or facts in a text; default: noise", text);
    v("bos", "whether every prompt begins with a bos token; auto: if config.json names one", bos);
    v("dry_run", "estimate time, memory and disk, and do nothing", dry_run);
    output.visit(v);
    v("predictions", "write prompts, answers and predictions to this .jsonl file", predictions);
  }
};

std::string haystack_text(const std::vector<std::string>& inputs) {
  std::string text;
  if (inputs.empty()) return text;
  constexpr size_t kEnough = 4u << 20;  // bytes; longer prompts repeat the text from the beginning
  data::CorpusOptions options{.inputs = inputs};
  options.enough = [&] { return text.size() >= kEnough; };
  data::read_corpus(options, [&](data::Document&& document) { text += document.text + "\n"; });
  text.resize(std::min(text.size(), text.find(' ', std::min(text.size(), kEnough))));
  return text;
}

ordered_json sample_json(const eval::RulerSample& s) {
  return {{"task", std::string(enum_name(s.task))},
          {"length", s.length},
          {"index", s.number},
          {"tokens", s.tokens},
          {"input", s.prompt.text},
          {"outputs", s.prompt.answers},
          {"pred", s.prediction},
          {"score", s.score}};
}

std::string score_text(const eval::RulerCell* cell) {
  if (!cell) return "-";
  const eval::RulerScore& s = cell->score;
  return fmt::format("{:.2f} ({:.2f}-{:.2f})", s.score, s.interval.low, s.interval.high);
}

bool measured(const eval::RulerResult& result) {
  return std::ranges::none_of(result.cells, [](const eval::RulerCell& c) { return std::isnan(c.score.score); });
}

report::Table ruler_table(const eval::RulerResult& result, const eval::RulerOptions& o) {
  report::Table table{.title = "", .header = {"task"}, .rows = {}, .align = {}};
  for (const int64_t length : o.lengths) table.header.push_back(fmt::format("{}", length));
  for (size_t t = 0; t < o.tasks.size(); ++t) {
    std::vector<std::string> row{std::string(enum_name(o.tasks[t]))};
    for (const int64_t length : o.lengths) row.push_back(score_text(result.cell(o.tasks[t], length)));
    table.rows.push_back(std::move(row));
  }
  std::vector<std::string> average{"average"};
  for (const double a : result.averages)
    average.push_back(std::isnan(a) ? (measured(result) ? "-" : "nan") : fmt::format("{:.3f}", a));
  table.rows.push_back(std::move(average));
  return table;
}

// Explains a table of zeros; "" if any answer was correct or could not be measured.
std::string zeros_note(const eval::RulerResult& result, const LoadedModel& m) {
  int64_t shortest = std::numeric_limits<int64_t>::max();
  for (const eval::RulerCell& cell : result.cells) {
    if (cell.score.score > 0 || std::isnan(cell.score.score)) return "";
    shortest = std::min(shortest, cell.least_tokens);
  }
  const int64_t trained = m.model.spec.max_position;
  if (shortest > trained)
    return fmt::format(
        "No answer was found. No length lies within the trained {}, so this does not tell whether the model has "
        "learned the tasks.",
        counted(trained, "token"));
  return fmt::format("No answer was found, not even within the trained {}: the model has not learned these tasks.",
                     counted(trained, "token"));
}

std::string ruler_svg(const eval::RulerResult& result, const eval::RulerOptions& o, const LoadedModel& m,
                      const Measurement& measurement) {
  report::HeatMap map{.title = measurement.title("RULER tasks, " + method_text(m)),
                      .x_label = "length (tokens)",
                      .y_label = "",
                      .note = measurement.partial() ? "" : zeros_note(result, m)};
  for (const int64_t length : o.lengths) map.x_ticks.push_back(fmt::format("{}", length));
  for (size_t t = 0; t < o.tasks.size(); ++t) {
    map.y_ticks.emplace_back(enum_name(o.tasks[t]));
    map.values.emplace_back();
    for (const int64_t length : o.lengths) {
      const eval::RulerCell* cell = result.cell(o.tasks[t], length);
      map.values.back().push_back(cell ? cell->score.score : std::nan(""));
    }
  }
  return report::render_svg(map);
}

ordered_json cell_json(const eval::RulerCell& c) {
  return {{"task", std::string(enum_name(c.task))},
          {"length", c.length},
          {"samples", c.score.samples},
          {"score", number_json(c.score.score)},
          {"score_low", number_json(c.score.interval.low)},
          {"score_high", number_json(c.score.interval.high)},
          {"least_tokens", c.least_tokens},
          {"most_tokens", c.most_tokens},
          {"new_tokens", data::ruler_new_tokens(c.task)},
          {"seconds", c.seconds}};
}

std::vector<std::string> missing_cells(const eval::RulerResult& result, const eval::RulerOptions& o) {
  std::vector<std::string> missing;
  for (const data::RulerTask task : o.tasks)
    for (const int64_t length : o.lengths) {
      const eval::RulerCell* cell = result.cell(task, length);
      if (!cell)
        missing.push_back(fmt::format("{} at length {}", enum_name(task), length));
      else if (cell->score.samples < o.samples)
        missing.push_back(fmt::format("{} of {} of {} at length {}", grouped(o.samples - cell->score.samples),
                                      counted(o.samples, "sample"), enum_name(task), length));
    }
  return missing;
}

ordered_json result_json(RulerFlags& flags, const LoadedModel& m, const eval::RulerResult& result,
                         const Measurement& measurement) {
  ordered_json json = header_json(flags.model, m, result_options(flags));
  measurement.mark(json);
  json["cells"] = ordered_json::array();
  for (const eval::RulerCell& cell : result.cells) json["cells"].push_back(cell_json(cell));
  json["averages"] = ordered_json::array();
  for (const double average : result.averages)
    json["averages"].push_back(number_or_null(std::isnan(average) ? std::nullopt : std::optional(average)));
  json["threshold"] = eval::kRulerThreshold;
  json["effective_length"] = measured(result) ? ordered_json(result.effective_length) : ordered_json(nullptr);
  return json;
}

void print_result(const RulerFlags& flags, const eval::RulerOptions& options, const eval::RulerResult& result) {
  print_prose(bos_text(result.bos, "in front of every prompt, which counts it", "") +
              fmt::format("; {} a cell, seed {}; essay haystack: {}; greedy; score: share of the answers found, with "
                          "Wilson's 95 % interval\n\n",
                          counted(flags.samples, "prompt"), flags.seed,
                          options.haystack.empty() ? "noise" : "the text given"));
  print(table_text(ruler_table(result, options)));
  print_prose(fmt::format("effective length (average at least {:g}): {}\n", eval::kRulerThreshold,
                          !measured(result)             ? "nan"
                          : result.effective_length > 0 ? std::to_string(result.effective_length)
                                                        : "none of these"));
}

int64_t place_in(const auto& list, const auto& item) { return std::ranges::find(list, item) - list.begin(); }

std::vector<int64_t> default_lengths(const ModelShape& shape, eval::RulerOptions options) {
  return eval::default_lengths(shape.spec.max_position, [&](int64_t length) {
    options.lengths = {length};
    try {
      eval::check_ruler(shape.spec, *shape.tokenizer, options);
      return true;
    } catch (const Error&) {
      return false;
    }
  });
}

eval::RulerOptions options_of(RulerFlags& flags, const ModelShape& shape) {
  eval::RulerOptions options{.lengths = flags.lengths,
                             .samples = flags.samples,
                             .seed = flags.seed,
                             .haystack = haystack_text(flags.text),
                             .bos = flags.bos,
                             .scaling = shape.scaling,
                             .progress = {},
                             .ranks = ranks()};
  for (const std::string& task : flags.tasks) {
    COCA_CHECK(!task.starts_with("qa"),
               "--tasks: \"{}\" asks questions about SQuAD and HotpotQA, which coca does not have; expected one of {}",
               task, enum_choices<data::RulerTask>());
    detail::parse_value("--tasks", {task}, options.tasks.emplace_back());
  }
  if (flags.lengths.empty()) options.lengths = flags.lengths = default_lengths(shape, options);
  return options;
}

int run_ruler(RulerFlags& flags) {
  check_outputs(flags.output);
  ModelShape shape = load_shape(flags);
  eval::RulerOptions options = options_of(flags, shape);
  const int64_t prompts = flags.samples * static_cast<int64_t>(options.tasks.size());
  eval::check_ruler(shape.spec, *shape.tokenizer, options);
  const std::vector<Part> parts = prompt_parts(shape.spec, flags.lengths, prompts);
  if (flags.dry_run) {
    print_eval_work(flags, shape.spec, parts, 1);
    return end_dry_run();
  }
  const LoadedModel m = load_with_flags(flags, std::move(shape));
  WorkShare share(parts);
  LateProgress progress;
  std::map<std::array<int64_t, 3>, std::string> predictions;  // by task, length and number, in the order of the cells
  options.progress = [&](const eval::RulerSample& s, int64_t done, int64_t total) {
    progress.shown({.total = total, .unit = "prompts", .label = "ruler"})
        .update(done, fmt::format("{} length {} score {:.2f}", enum_name(s.task), s.length, s.score),
                share.at(s.length, done));
    if (!flags.predictions.empty())
      predictions[{place_in(options.tasks, s.task), place_in(options.lengths, s.length), s.number}] =
          sample_json(s).dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
  };
  Context cx;
  eval::RulerResult result;
  Measurement measurement(
      [&] { eval::ruler(cx, m.model.spec, m.model.params->weights(), *m.tokenizer, options, result); });
  progress.finish();
  if (result.cells.empty()) measurement.rethrow();
  measurement.missing = missing_cells(result, options);
  for (const eval::RulerCell& cell : result.cells) measurement.check_score(cell.score.score, cell.length);
  return measurement.report([&] {
    print_model_line(flags.model, m);
    print_result(flags, options, result);
    if (const std::string note = zeros_note(result, m); !note.empty() && !measurement.partial())
      print_prose(note + " The zeros say nothing about length.\n");
    print_prose(measurement.line());
    std::vector<int64_t> lengths;
    for (const eval::RulerCell& cell : result.cells) lengths.push_back(cell.length);
    note_extrapolation(m, lengths);
    write_each({[&] {
                  write_outputs(flags.output, result_json(flags, m, result, measurement), "cells",
                                [&] { return ruler_svg(result, options, m, measurement); });
                },
                [&] {
                  std::string lines;
                  for (const auto& [place, line] : predictions) lines += line;
                  if (!flags.predictions.empty() && first_rank()) io::write_file_atomic(flags.predictions, lines);
                }});
  });
}

}  // namespace

void add_eval_ruler(CLI::App& eval_app, Action* action) {
  add_command<RulerFlags>(
      eval_app, action, "ruler", "RULER's synthetic tasks (needles, variable tracking, word counts) by length",
      "Example: coca eval ruler --model out/model --tasks niah_single_1,vt --lengths 1024,2048 --samples 20",
      run_ruler);
}

}  // namespace coca::tools

// coca eval recall: names of the text that occur again, by the length that lies between. docs/evaluation.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/recall.h"

#include <algorithm>

#include "coca/base/count.h"
#include "coca/model/windows.h"
#include "coca/report/chart.h"
#include "coca/report/table.h"
#include "eval_command.h"
#include "ranks.h"
#include "text_documents.h"

namespace coca::tools {

namespace {

using nlohmann::ordered_json;

struct RecallFlags : ModelFlags {
  TextFlags text;
  std::vector<int64_t> lengths;
  int64_t pairs = eval::RecallOptions{}.pairs, max_tokens = 0, max_documents = 0;
  std::optional<int64_t> lead;
  std::optional<eval::Cut> cut;
  eval::RecallWords words = eval::RecallWords::kNames;
  eval::RecallGiven given = eval::RecallGiven::kFirst;
  eval::Bos bos = eval::Bos::kAuto;
  bool dry_run = false;
  EvalOutputFlags output;

  template <class V>
  void visit(V&& v) {
    ModelFlags::visit(v);
    text.visit(v);
    v.group("Protocol");
    v("lengths",
      "windows from more than half of so many tokens up to them, bos included; default: 1, 2, 4, 8, 16 and 32 times "
      "the trained length",
      lengths, Least{8});
    v("pairs", "windows of each length, at most, spread evenly over the text", pairs, Least{1});
    v("lead", "tokens before the first occurrence, at most; default: an eighth of the trained length", lead, Least{1});
    v("words", "names, or any words that a document has two or three times", words);
    v("given", "what the model is told of the name: its first token, or nothing", given);
    v("bos", "whether there is a bos token; auto: if config.json names one", bos);
    v("max_tokens", "use at most this many tokens of each document; 0: all", max_tokens);
    v("cut", "which tokens: the middle of the document (the default), or its start", cut);
    v("max_documents", "use only this many documents, the first ones; 0: all", max_documents);
    v.group("Run");
    v("dry_run", "estimate time, memory and disk, and do nothing", dry_run);
    output.visit(v);
  }
};

eval::RecallOptions options_of(const RecallFlags& flags, const ModelShape& shape) {
  const int64_t trained = shape.spec.max_position;
  eval::RecallOptions options{.lengths = flags.lengths,
                              .pairs = flags.pairs,
                              .lead = flags.lead.value_or(std::max<int64_t>(1, trained / 8)),
                              .words = flags.words,
                              .given = flags.given,
                              .bos = flags.bos,
                              .scaling = shape.scaling,
                              .progress = {},
                              .ranks = ranks()};
  if (options.lengths.empty())
    for (const int64_t multiple : {1, 2, 4, 8, 16, 32})
      options.lengths.push_back(multiple * std::max<int64_t>(8, trained));
  return options;
}

std::vector<Part> parts_of(const model::ModelSpec& spec, const std::vector<eval::RecallResult>& planned) {
  std::vector<Part> parts;
  for (const eval::RecallResult& r : planned) {
    const int64_t tokens = r.planned * r.length;
    parts.push_back({.name = fmt::format("length {}", r.length),
                     .tokens = tokens,
                     .flops = static_cast<double>(tokens) * model::forward_flops_per_token(spec, r.length),
                     .length = r.length,
                     .units = r.planned});
  }
  return parts;
}

std::string share_text(const eval::RecallScore& s) {
  return fmt::format("{:.2f} ({:.2f}-{:.2f})", s.accuracy, s.interval.low, s.interval.high);
}

std::string mean_text(const eval::GroupedMean& mean) {
  return report::format_number(mean.mean, 3) +
         (mean.interval ? fmt::format(" ({}-{})", report::format_number(mean.interval->low, 3),
                                      report::format_number(mean.interval->high, 3))
                        : "");
}

report::Table recall_table(const std::vector<eval::RecallResult>& results) {
  report::Table table{.title = "",
                      .header = {"length", "distances", "pairs", "first", "second", "nll first", "nll second", "gain"},
                      .rows = {},
                      .align = {}};
  for (const eval::RecallResult& r : results)
    table.rows.push_back({fmt::format("{}{}", r.length, r.pairs == r.planned ? "" : " (partial)"),
                          grouped(r.least_distance) + "-" + grouped(r.most_distance), grouped(r.pairs),
                          share_text(r.first), share_text(r.second), report::format_number(r.first.nll.mean, 3),
                          report::format_number(r.second.nll.mean, 3), mean_text(r.gain)});
  return table;
}

void add_mean(ordered_json& row, const std::string& name, const eval::GroupedMean& mean) {
  row[name] = number_json(mean.mean);
  row[name + "_low"] = mean.interval ? number_json(mean.interval->low) : ordered_json(nullptr);
  row[name + "_high"] = mean.interval ? number_json(mean.interval->high) : ordered_json(nullptr);
}

ordered_json recall_json(const eval::RecallResult& r) {
  ordered_json row{{"length", r.length},
                   {"found", r.found},
                   {"planned", r.planned},
                   {"pairs", r.pairs},
                   {"documents", r.gain.groups},
                   {"scored_tokens", r.gain.items},
                   {"least_distance", r.least_distance},
                   {"most_distance", r.most_distance}};
  for (const auto& [name, score] :
       {std::pair(std::string("first_"), &r.first), std::pair(std::string("second_"), &r.second)}) {
    row[name + "accuracy"] = number_json(score->accuracy);
    row[name + "accuracy_low"] = number_json(score->interval.low);
    row[name + "accuracy_high"] = number_json(score->interval.high);
    add_mean(row, name + "nll", score->nll);
  }
  add_mean(row, "gain", r.gain);
  row["seconds"] = r.seconds;
  return row;
}

std::string recall_svg(const std::vector<eval::RecallResult>& results, const LoadedModel& m,
                       const Measurement& measurement) {
  report::Series first{.label = "first occurrence", .line = report::LineStyle::kDashed}, second{.label = "second"};
  for (const eval::RecallResult& r : results)
    for (const auto& [series, score] : {std::pair(&second, &r.second), std::pair(&first, &r.first)}) {
      series->x.push_back(static_cast<double>(r.length));
      series->y.push_back(score->accuracy);
      series->y_low.push_back(score->interval.low);
      series->y_high.push_back(score->interval.high);
    }
  return report::render_svg(
      report::Chart{.title = measurement.title("Recall of names, " + method_text(m)),
                    .x_label = "window (tokens)",
                    .y_label = "accuracy",
                    .x_scale = report::Scale::kLog2,
                    .y_min = 0,
                    .y_max = 1,
                    .series = {second, first},
                    .vertical_line = report::Marker{static_cast<double>(m.model.spec.max_position), "trained length"}});
}

std::vector<std::string> missing_of(const std::vector<eval::RecallResult>& planned,
                                    const std::vector<eval::RecallResult>& results) {
  std::vector<std::string> missing;
  for (const eval::RecallResult& plan : planned) {
    const auto done = std::ranges::find(results, plan.length, &eval::RecallResult::length);
    const int64_t pairs = done == results.end() ? 0 : done->pairs;
    if (plan.planned > 0 && pairs == 0) missing.push_back(fmt::format("length {}", plan.length));
    if (pairs > 0 && pairs < plan.planned)
      missing.push_back(fmt::format("{} of {} of length {}", grouped(plan.planned - pairs),
                                    counted(plan.planned, "window"), plan.length));
  }
  return missing;
}

void print_recall(const RecallFlags& flags, const eval::RecallOptions& options, const LoadedModel& m,
                  const std::vector<eval::RecallResult>& planned, const std::vector<eval::RecallResult>& results,
                  const Measurement& measurement) {
  print_model_line(flags.model, m);
  print_prose(fmt::format("words: {}; {}; at most {} before the first occurrence\n\n", enum_name(flags.words),
                          flags.given == eval::RecallGiven::kFirst ? "the first token is given" : "nothing is given",
                          counted(options.lead, "token")));
  print(table_text(recall_table(results)));
  print_prose(measurement.line());
  for (const eval::RecallResult& plan : planned)
    if (plan.planned == 0) print_prose(fmt::format("length {}: the text has no such pair\n", plan.length));
  print_prose(
      "first, second: share of the names whose tokens are all right (Wilson's 95 % interval), where the window has not "
      "had the name, and where it has had it once; gain: nll first - nll second, per token (95 % interval by Student's "
      "t over documents)\n");
  std::vector<int64_t> lengths;
  for (const eval::RecallResult& r : results) lengths.push_back(r.length);
  note_extrapolation(m, lengths);
}

int run_recall(RecallFlags& flags) {
  check_outputs(flags.output);
  COCA_CHECK(!flags.cut || flags.max_tokens > 0,
             "--cut: all tokens of each document are used; add --max-tokens, or leave the option out");
  ModelShape shape = load_shape(flags);
  eval::RecallOptions options = options_of(flags, shape);
  const Documents documents = read_documents(flags.text,
                                             {.max_tokens = flags.max_tokens,
                                              .cut = flags.cut.value_or(eval::Cut::kMiddle),
                                              .max_documents = flags.max_documents},
                                             *shape.tokenizer);
  const std::vector<eval::RecallResult> planned =
      eval::plan_recall(shape.spec, *shape.tokenizer, documents.ids, options);
  const std::vector<Part> parts = parts_of(shape.spec, planned);
  if (flags.dry_run) {
    print_eval_work(flags, shape.spec, parts, 1);
    return end_dry_run();
  }
  const LoadedModel m = load_with_flags(flags, std::move(shape));
  WorkShare share(parts);
  LateProgress progress;
  options.progress = [&](int64_t length, int64_t done, int64_t total) {
    progress.shown({.total = total, .unit = "windows", .label = "recall"})
        .update(done, fmt::format("length {}", length), share.at(length, done));
  };
  Context cx;
  std::vector<eval::RecallResult> results;
  Measurement measurement([&] {
    eval::recall(cx, m.model.spec, m.model.params->weights(), *m.tokenizer, documents.ids, options, results);
  });
  progress.finish();
  if (results.empty()) measurement.rethrow();
  if (measurement.partial()) measurement.missing = missing_of(planned, results);
  ordered_json json = header_json(flags.model, m, result_options(flags));
  measurement.mark(json);
  json["lead"] = options.lead;
  json["results"] = ordered_json::array();
  for (const eval::RecallResult& r : results) {
    measurement.check_score(r.second.accuracy, r.length);
    json["results"].push_back(recall_json(r));
  }
  return measurement.report([&] {
    print_recall(flags, options, m, planned, results, measurement);
    write_outputs(flags.output, json, "results", [&] { return recall_svg(results, m, measurement); });
  });
}

}  // namespace

void add_eval_recall(CLI::App& eval_app, Action* action) {
  add_command<RecallFlags>(eval_app, action, "recall", "Recall of names that a text repeats, by distance",
                           "Example: coca eval recall --model out/model --text books/test --max-documents 20 "
                           "--pairs 50 --csv recall.csv --plot recall.svg",
                           run_recall);
}

}  // namespace coca::tools

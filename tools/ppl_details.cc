// SPDX-License-Identifier: Apache-2.0
#include "ppl_details.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "coca/base/count.h"
#include "coca/io/fs.h"
#include "coca/model/windows.h"
#include "coca/report/chart.h"
#include "ranks.h"

namespace coca::tools {

using nlohmann::ordered_json;

namespace {

std::string interval_text(const std::optional<eval::Interval>& interval) {
  if (!interval) return "-";
  return report::format_number(interval->low) + "-" + report::format_number(interval->high);
}

// Of exp(mean): exp is monotone, so the ends of the interval go with it. No mean of nll is below 0.
std::optional<eval::Interval> exponential(const std::optional<eval::Interval>& interval) {
  if (!interval) return std::nullopt;
  return eval::Interval{.low = std::exp(std::max(0.0, interval->low)), .high = std::exp(interval->high)};
}

void add_interval(ordered_json& row, const char* name, const std::optional<eval::Interval>& interval) {
  const std::string of = name;
  row[of + "_low"] = interval ? number_json(interval->low) : ordered_json(nullptr);
  row[of + "_high"] = interval ? number_json(interval->high) : ordered_json(nullptr);
}

report::Table table_of(const std::vector<DetailedModel>& models, std::vector<std::string> header) {
  report::Table table{.title = "", .header = std::move(header), .rows = {}, .align = {}};
  if (models.size() > 1) table.header.insert(table.header.begin(), "model");
  return table;
}

void add_row(report::Table& table, const DetailedModel& model, std::vector<std::string> row) {
  if (table.header.front() == "model") row.insert(row.begin(), model.name);
  table.rows.push_back(std::move(row));
}

void print_keys(const FoundKeys& keys, const std::vector<DetailedModel>& models) {
  const eval::KeyTokenRule& rule = *keys.rule;
  print_prose(fmt::format(
      "\nkey tokens: {} of {}, found by {}: log p with {} tokens of context is above {} and by more than {} above "
      "log p with {}\n",
      grouped(keys.tokens.found), counted(keys.tokens.compared, "token"), keys.evaluator, grouped(rule.long_context),
      report::format_number(rule.least, 3), report::format_number(rule.gain, 3), grouped(rule.short_context)));
  if (keys.tokens.found == 0) {
    print_prose("There is no key token, so there is no LongPPL; a smaller --key-gain or --key-least finds more.\n");
    return;
  }
  report::Table table = table_of(models, {"length", "key tokens", "share", "LongPPL", "95 % interval"});
  for (const DetailedModel& model : models)
    for (const eval::PerplexityResult& r : *model.results)
      add_row(table, model,
              {fmt::format("{}", r.length), grouped(r.key->loss.items), fmt::format("{:.4f}", r.key->share),
               report::format_number(r.key->perplexity()), interval_text(exponential(r.key->loss.interval))});
  print("\n" + table_text(table));
}

// The result of the greatest length, whose windows hold all positions.
const eval::PerplexityResult& longest(const DetailedModel& model) {
  return *std::ranges::max_element(*model.results, {}, &eval::PerplexityResult::length);
}

void print_positions(const std::vector<DetailedModel>& models) {
  report::Table table = table_of(models, {"tokens before", "targets", "nll", "95 % interval"});
  for (const DetailedModel& model : models)
    for (const eval::PositionLoss& p : longest(model).positions)
      add_row(table, model,
              {p.from == p.to ? grouped(p.from) : grouped(p.from) + "-" + grouped(p.to), grouped(p.loss.items),
               report::format_number(p.loss.mean), interval_text(p.loss.interval)});
  print_prose(fmt::format("\nby position, in windows of {}:\n", counted(longest(models.front()).length, "token")));
  print("\n" + table_text(table));
}

report::Series position_series(const DetailedModel& model) {
  report::Series series{.label = model.name.empty() ? model.method : model.name + ": " + model.method};
  const std::vector<eval::PositionLoss>& positions = longest(model).positions;
  const bool intervals =
      std::ranges::any_of(positions, [](const eval::PositionLoss& p) { return p.loss.interval.has_value(); });
  for (const eval::PositionLoss& p : positions) {
    series.x.push_back(std::sqrt(static_cast<double>(p.from) * static_cast<double>(p.to)));
    series.y.push_back(p.loss.mean);
    if (!intervals) continue;
    const eval::Interval interval = p.loss.interval.value_or(eval::Interval{p.loss.mean, p.loss.mean});
    series.y_low.push_back(interval.low);
    series.y_high.push_back(interval.high);
  }
  return series;
}

std::string position_svg(const std::vector<DetailedModel>& models, const Measurement& measurement) {
  report::Chart chart{.title = measurement.title("Loss by position in the window"),
                      .x_label = "tokens before the target",
                      .y_label = "nll",
                      .x_scale = report::Scale::kLog2};
  int64_t most = 1;
  for (const DetailedModel& model : models) {
    chart.series.push_back(position_series(model));
    if (!longest(model).positions.empty()) most = std::max(most, longest(model).positions.back().to);
  }
  for (int64_t tick = 1; tick <= 2 * most; tick *= 2) chart.x_ticks.push_back(static_cast<double>(tick));
  const int64_t trained = models.front().trained_length;
  if (std::ranges::all_of(models, [&](const DetailedModel& m) { return m.trained_length == trained; }))
    chart.vertical_line = report::Marker{static_cast<double>(trained), "trained length"};
  return report::render_svg(chart);
}

}  // namespace

void check_details(const PplDetailFlags& flags) {
  check_ending("--position-plot", flags.position_plot, {".svg"});
  COCA_CHECK_AS(kIo, flags.position_plot.empty() || report::gnuplot_available(),
                "--position-plot: gnuplot is not installed");
  const bool keys = !flags.evaluator.empty() || flags.key_long || flags.key_short ||
                    flags.key_gain != PplDetailFlags{}.key_gain || flags.key_least != PplDetailFlags{}.key_least;
  COCA_CHECK(flags.key_tokens || !keys,
             "--evaluator, --key-long, --key-short, --key-gain and --key-least say what key tokens are; add "
             "--key-tokens, or leave them out");
}

Part ppl_part(const model::ModelSpec& spec, const eval::PerplexityResult& r) {
  return {.name = fmt::format("length {}", r.length),
          .tokens = r.run_tokens,
          .flops = static_cast<double>(r.run_tokens) * model::forward_flops_per_token(spec, r.length),
          .length = r.length,
          .units = r.run_tokens};
}

Evaluator load_evaluator(ModelFlags flags, const PplDetailFlags& details) {
  Evaluator evaluator{.flags = std::move(flags), .shape = {}, .rule = {}};
  evaluator.shape = load_shape(evaluator.flags);
  model::require_causal(evaluator.shape.spec, "perplexity");
  eval::KeyTokenRule& rule = evaluator.rule;
  rule.long_context = details.key_long.value_or(evaluator.shape.spec.max_position);
  rule.short_context = details.key_short.value_or(std::max<int64_t>(2, rule.long_context / 8));
  rule.gain = details.key_gain;
  rule.least = details.key_least;
  eval::check_rule(rule);
  return evaluator;
}

std::vector<Part> Evaluator::parts(const Documents& documents, const eval::PerplexityOptions& options) const {
  std::vector<Part> all;
  for (const eval::PerplexityOptions& run : eval::key_token_runs(options, rule)) {
    const eval::PerplexityResult planned = eval::plan_perplexity(shape.spec, documents.ids, run).at(0);
    all.push_back(ppl_part(shape.spec, planned));
    all.back().name = fmt::format("key tokens, context {}", planned.length);
  }
  return all;
}

FoundKeys Evaluator::find(const Documents& documents, eval::PerplexityOptions options) {
  const std::string name = flags.model;
  const LoadedModel m = load_with_flags(flags, std::move(shape));
  LateProgress progress;
  options.progress = [&](const eval::PerplexityProgress& p) {
    progress.shown({.total = p.total_tokens, .unit = "tokens", .label = "key tokens"})
        .update(p.done_tokens, fmt::format("context {}", p.length));
  };
  Context cx;
  FoundKeys found{
      .tokens = eval::find_key_tokens(cx, m.model.spec, m.model.params->weights(), documents.ids, options, rule),
      .rule = rule,
      .evaluator = name};
  progress.finish();
  return found;
}

void print_details(const PplDetailFlags& flags, const FoundKeys& keys, const std::vector<DetailedModel>& models) {
  if (keys.rule) print_keys(keys, models);
  if (flags.by_position) print_positions(models);
  if (keys.rule || flags.by_position)
    print_prose("95 % interval: by Student's t over documents, as if these were independent; - for a single one\n");
}

void write_positions(const PplDetailFlags& flags, const ordered_json& json, const std::vector<DetailedModel>& models,
                     const Measurement& measurement) {
  if (!flags.wants_positions()) return;
  write_each({[&] { write_outputs(OutputFlags{.json = "", .csv = flags.position_csv}, json, "positions"); },
              [&] {
                if (!flags.position_plot.empty() && first_rank())
                  io::write_file_atomic(flags.position_plot, position_svg(models, measurement));
              }});
}

ordered_json keys_json(const FoundKeys& keys) {
  return {{"evaluator", keys.evaluator},
          {"long_context", keys.rule->long_context},
          {"short_context", keys.rule->short_context},
          {"gain", keys.rule->gain},
          {"least", keys.rule->least},
          {"compared", keys.tokens.compared},
          {"found", keys.tokens.found}};
}

void add_key_tokens(ordered_json& row, const eval::PerplexityResult& r) {
  if (!r.key) return;
  row["key_tokens"] = r.key->loss.items;
  row["key_share"] = r.key->share;
  row["key_documents"] = r.key->loss.groups;
  row["long_perplexity"] = number_or_null(r.key->perplexity());
  add_interval(row, "long_perplexity", exponential(r.key->loss.interval));
}

ordered_json positions_json(const Results& results) {
  ordered_json list = ordered_json::array();
  for (const eval::PerplexityResult& r : results)
    for (const eval::PositionLoss& p : r.positions) {
      list.push_back({{"length", r.length},
                      {"from", p.from},
                      {"to", p.to},
                      {"targets", p.loss.items},
                      {"documents", p.loss.groups},
                      {"nll", number_json(p.loss.mean)}});
      add_interval(list.back(), "nll", p.loss.interval);
    }
  return list;
}

ordered_json documents_json(const Results& results, const Documents& documents) {
  ordered_json list = ordered_json::array();
  data::BookLists books;
  for (const eval::PerplexityResult& r : results)
    for (const eval::DocumentPerplexity& d : r.by_document) {
      const std::string& name = documents.names[static_cast<size_t>(d.document)];
      const data::Book book = books.find(name).value_or(data::Book{});
      list.push_back({{"length", r.length},
                      {"document", name},
                      {"title", book.title},
                      {"year", book.year ? ordered_json(*book.year) : ordered_json(nullptr)},
                      {"tokens", d.tokens},
                      {"windows", d.sums.windows},
                      {"scored_tokens", d.sums.scored_tokens},
                      {"words", d.sums.words},
                      {"nll", number_json(d.sums.mean_nll())},
                      {"perplexity", number_json(d.sums.perplexity())},
                      {"word_perplexity", number_or_null(d.sums.word_perplexity())},
                      {"bits_per_byte", number_or_null(d.sums.bits_per_byte())}});
    }
  return list;
}

report::Table documents_table(const ordered_json& documents) {
  report::Table table{.title = "",
                      .header = {"document", "year", "length", "scored tokens", "ppl", "bits/byte", "word ppl"},
                      .rows = {},
                      .align = {}};
  const bool several = !documents.empty() && documents.front().contains("model");
  if (several) table.header.insert(table.header.begin(), "model");
  const auto number = [](const ordered_json& value) {
    return value.is_null()     ? "-"
           : value.is_string() ? value.get<std::string>()
                               : report::format_number(value.get<double>());
  };
  for (const ordered_json& j : documents) {
    const std::string title = j["title"];
    table.rows.push_back({title.empty() ? j["document"].get<std::string>() : title,
                          j["year"].is_null() ? "-" : j["year"].dump(), j["length"].dump(),
                          grouped(j["scored_tokens"].get<int64_t>()), number(j["perplexity"]),
                          number(j["bits_per_byte"]), number(j["word_perplexity"])});
    if (several) table.rows.back().insert(table.rows.back().begin(), j["model"].get<std::string>());
  }
  return table;
}

}  // namespace coca::tools

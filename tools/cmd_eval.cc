// coca eval ppl and coca eval passkey: a model at several lengths. Protocols: docs/evaluation.md.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>

#include "cli.h"
#include "coca/base/memory.h"
#include "coca/base/version.h"
#include "coca/data/corpus.h"
#include "coca/eval/passkey.h"
#include "coca/eval/perplexity.h"
#include "coca/io/fs.h"
#include "coca/report/chart.h"
#include "coca/report/table.h"
#include "documents.h"
#include "model_flags.h"
#include "output_flags.h"

namespace coca::tools {

namespace {

using nlohmann::ordered_json;

struct EvalOutputFlags : OutputFlags {
  std::string plot;

  template <class V>
  void visit(V&& v) {
    OutputFlags::visit(v);
    v("plot", "draw the results into this SVG file (needs gnuplot)", plot);
  }
};

struct PplFlags : ModelFlags {
  std::vector<std::string> text;
  std::string field;
  data::InvalidUtf8 invalid_utf8 = data::InvalidUtf8::kReplace;
  std::vector<int64_t> lengths = {512, 1024, 2048, 4096};
  int64_t stride = 512, max_tokens = 0, max_documents = 0, batch_tokens = 8192;
  eval::Average average = eval::Average::kTokens;
  eval::Bos bos = eval::Bos::kAuto;
  EvalOutputFlags output;

  template <class V>
  void visit(V&& v) {
    ModelFlags::visit(v);
    v.group("Text");
    v("text", "files, globs or folders (their .txt and .jsonl files)", text);
    v("field", "field of JSON lines; default: content, then text", field);
    v("invalid_utf8", "what to do with text that is not UTF-8", invalid_utf8);
    v("max_documents", "take the first so many; 0: all", max_documents);
    v("max_tokens", "cut every document after so many tokens; 0: none", max_tokens);
    v.group("Protocol");
    v("lengths", "windows in tokens, a leading bos included", lengths);
    v("stride", "tokens from window to window; at most the window", stride);
    v("average", "mean over tokens, or over windows' means", average);
    v("bos", "whether a bos token leads every window; auto: if config.json names one", bos);
    v("batch_tokens", "run windows together up to about so many tokens", batch_tokens);
    output.visit(v);
  }
};

struct PasskeyFlags : ModelFlags {
  std::vector<int64_t> lengths = {512, 1024, 2048, 4096};
  std::vector<double> depths = {0, 0.25, 0.5, 0.75, 1};
  int64_t trials = 20, digits = 5, seed = 0, batch_tokens = 8192;
  data::PasskeyWording wording = data::PasskeyWording::kLandmark;
  eval::Bos bos = eval::Bos::kAuto;
  EvalOutputFlags output;

  template <class V>
  void visit(V&& v) {
    ModelFlags::visit(v);
    v.group("Protocol");
    v("lengths", "tokens of bos, prompt and answer together", lengths);
    v("depths", "where the key stands: share of the garbage in front of it", depths);
    v("trials", "prompts per length and depth", trials);
    v("wording", "text of the prompt", wording);
    v("digits", "digits of the key", digits);
    v("seed", "of keys; the same seed gives the same prompts", seed);
    v("bos", "whether a bos token leads every prompt; auto: if config.json names one", bos);
    v("batch_tokens", "run prompts together up to about so many tokens", batch_tokens);
    output.visit(v);
  }
};

void write_outputs(const EvalOutputFlags& o, const ordered_json& json, const char* results,
                   const std::function<std::string()>& svg) {
  write_outputs(o, json, results);
  if (!o.plot.empty()) io::write_file_atomic(o.plot, svg());
}

void check_outputs(const EvalOutputFlags& o) {
  COCA_CHECK_AS(kIo, o.plot.empty() || report::gnuplot_available(), "--plot: gnuplot is not installed");
  check_output_folders({o.json, o.csv, o.plot});
}

ordered_json header_json(const std::string& dir, const LoadedModel& m, ordered_json options) {
  ordered_json j;
  j["coca"] = fmt::format("{} ({})", version(), git_commit());
  j["model"] = dir;
  j["attention"] = std::string(enum_name(m.model.spec.attention));
  j["trained_length"] = m.model.spec.max_position;
  j["rope_scaling"] = scaling_text(m.used_scaling);
  j["tokenizer"] = m.tokenizer->fingerprint();
  j["options"] = std::move(options);
  return j;
}

void print_model_line(const std::string& dir, const LoadedModel& m) {
  print(fmt::format("model: {} (attention {}, trained length {}, rope scaling {}), tokenizer: {}\n", dir,
                    enum_name(m.model.spec.attention), m.model.spec.max_position,
                    scaling_text(m.used_scaling), m.tokenizer->kind()));
}

// Beyond the trained length rotary models break down without scaling; that is no error, but it should be known.
void note_extrapolation(const LoadedModel& m, const std::vector<int64_t>& lengths) {
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  if (m.used_scaling.type == model::Scaling::kNone && model::uses_rotary(m.model.spec.attention) &&
      longest > m.model.spec.max_position)
    print(fmt::format(
        "note: lengths above {} exceed the trained length, without position scaling (see --rope-scaling)\n",
        m.model.spec.max_position));
}

std::string bos_text(std::optional<int32_t> bos, const char* with, const char* without) {
  return bos ? fmt::format("bos: token {} {}", *bos, with) : fmt::format("bos: none{}", without);
}

// ---- perplexity -----------------------------------------------------------------------------------------------------

report::Table ppl_table(const std::vector<eval::PerplexityResult>& results, eval::Average average) {
  report::Table table{.title = "",
                      .header = {"length", "stride", "windows", "scored tokens", "ppl", "+-", "nll",
                                 "bits/byte", "ppl (windows)", "tokens/s", "peak memory"},
                      .rows = {},
                      .align = {}};
  if (average == eval::Average::kWindows) table.header[4] = "ppl (windows)", table.header[8] = "ppl (tokens)";
  const eval::Average other =
      average == eval::Average::kTokens ? eval::Average::kWindows : eval::Average::kTokens;
  for (const eval::PerplexityResult& r : results) {
    std::optional<double> ppl_error;
    if (r.standard_error && average == eval::Average::kTokens) ppl_error = r.perplexity * *r.standard_error;
    table.rows.push_back({fmt::format("{}{}", r.length, r.reaches_length() ? "" : "*"),
                          fmt::format("{}", r.stride), report::format_count(r.windows),
                          report::format_count(r.scored_tokens), report::format_number(r.value(average)),
                          report::format_number(ppl_error, 2), report::format_number(r.nll),
                          report::format_number(r.bits_per_byte), report::format_number(r.value(other)),
                          report::format_count(static_cast<int64_t>(r.tokens_per_second)),
                          report::format_bytes(r.peak_resident_bytes)});
  }
  return table;
}

ordered_json ppl_json(const eval::PerplexityResult& r) {
  ordered_json j;
  j["length"] = r.length;
  j["stride"] = r.stride;
  j["documents"] = r.documents;
  j["short_documents"] = r.short_documents;
  j["skipped_documents"] = r.skipped_documents;
  j["reaches_length"] = r.reaches_length();
  j["windows"] = r.windows;
  j["scored_tokens"] = r.scored_tokens;
  j["bos"] = r.bos ? ordered_json(*r.bos) : ordered_json(nullptr);
  j["nll"] = number_json(r.nll);
  j["perplexity"] = number_json(r.perplexity);
  j["window_mean_perplexity"] = number_json(r.window_mean_perplexity);
  j["bits_per_byte"] = r.bits_per_byte ? number_json(*r.bits_per_byte) : ordered_json(nullptr);
  j["standard_error"] = r.standard_error ? number_json(*r.standard_error) : ordered_json(nullptr);
  j["seconds"] = r.seconds;
  j["tokens_per_second"] = r.tokens_per_second;
  j["peak_resident_bytes"] = r.peak_resident_bytes;
  return j;
}

std::string ppl_svg(const std::vector<eval::PerplexityResult>& results, const LoadedModel& m,
                    eval::Average average) {
  report::Series series{
      .label = fmt::format("{} ({})", enum_name(m.model.spec.attention), scaling_text(m.used_scaling))};
  double low = std::numeric_limits<double>::infinity(),
         high = 0;  // a decade or more wants a logarithmic axis
  for (const eval::PerplexityResult& r : results) {
    series.x.push_back(static_cast<double>(r.length));
    series.y.push_back(r.value(average));
    if (!std::isfinite(series.y.back())) continue;
    low = std::min(low, series.y.back());
    high = std::max(high, series.y.back());
  }
  return report::render_svg(report::Chart{
      .title = "Perplexity by window length",
      .x_label = "window (tokens)",
      .y_label = "perplexity",
      .x_scale = report::Scale::kLog2,
      .y_scale = high > 10 * low ? report::Scale::kLog : report::Scale::kLinear,
      .series = {std::move(series)},
      .vertical_line = report::Marker{static_cast<double>(m.model.spec.max_position), "trained length"}});
}

int run_ppl(PplFlags& flags) {
  check_outputs(flags.output);
  const LoadedModel m = load_with_flags(flags);
  const Documents documents = read_documents({.inputs = flags.text,
                                              .invalid_utf8 = flags.invalid_utf8,
                                              .json_field = flags.field,
                                              .max_documents = flags.max_documents},
                                             *m.tokenizer, flags.max_tokens);
  std::optional<report::Progress> progress;
  eval::PerplexityOptions options{.lengths = flags.lengths,
                                  .stride = flags.stride,
                                  .max_tokens = flags.max_tokens,
                                  .max_documents = flags.max_documents,
                                  .bos = flags.bos,
                                  .scaling = m.scaling,
                                  .batch_tokens = flags.batch_tokens,
                                  .id_bytes = eval::bytes_per_id(*m.tokenizer)};
  options.progress = [&](const eval::PerplexityProgress& p) {
    if (!progress) progress = make_progress({.total = p.total_tokens, .unit = "tokens", .label = "ppl"});
    progress->update(p.done_tokens,
                     fmt::format("length {} ppl {}", p.length, report::format_number(p.perplexity)));
  };
  Context cx;
  const std::vector<eval::PerplexityResult> results =
      eval::perplexity(cx, m.model.spec, m.model.params->weights(), documents.ids, options);
  if (progress) progress->finish();

  const report::Table table = ppl_table(results, flags.average);
  const eval::PerplexityResult& first = results.front();
  int64_t tokens = 0;
  for (const auto& ids : documents.ids) tokens += static_cast<int64_t>(ids.size());
  print_model_line(flags.model, m);
  print(fmt::format("documents: {}, {} tokens, {} of text{}{}\n", report::format_count(first.documents),
                    report::format_count(tokens), report::format_bytes(documents.bytes),
                    flags.max_tokens > 0
                        ? fmt::format(", cut after {} tokens", report::format_count(flags.max_tokens))
                        : "",
                    first.skipped_documents > 0
                        ? fmt::format("; {} of fewer than two tokens skipped", first.skipped_documents)
                        : ""));
  print(bos_text(first.bos, "in front of every window, which counts it",
                 ", so the first token of a document is not scored") +
        fmt::format("; stride {}; average over {}\n\n", flags.stride, enum_name(flags.average)));
  print(report::to_text(table));
  for (const eval::PerplexityResult& r : results) {
    if (!r.reaches_length())
      print(fmt::format("* length {}: no document is so long; the longest window has {} tokens\n", r.length,
                        r.longest_window));
    else if (r.short_documents > 0)
      print(fmt::format("length {}: {} of {} documents are shorter\n", r.length, r.short_documents,
                        r.documents));
  }
  if (flags.average == eval::Average::kTokens)
    print("+-: one standard error over windows, as if these were independent\n");
  note_extrapolation(m, flags.lengths);
  ordered_json json = header_json(flags.model, m, io::options_to_json(flags));
  json["results"] = ordered_json::array();
  for (const eval::PerplexityResult& r : results) json["results"].push_back(ppl_json(r));
  write_outputs(flags.output, json, "results", [&] { return ppl_svg(results, m, flags.average); });
  return 0;
}

// ---- passkey --------------------------------------------------------------------------------------------------------

void fill_score(ordered_json& j, const eval::PasskeyScore& s) {
  j["trials"] = s.trials;
  j["correct"] = s.correct;
  j["accuracy"] = number_json(s.accuracy);
  j["accuracy_low"] = number_json(s.accuracy_low);
  j["accuracy_high"] = number_json(s.accuracy_high);
  j["digit_accuracy"] = number_json(s.digit_accuracy);
  j["nll"] = number_json(s.nll);
}

std::vector<std::string> passkey_row(int64_t length, std::string depth, const eval::PasskeyScore& s) {
  return {fmt::format("{}", length),
          std::move(depth),
          fmt::format("{}/{}", s.correct, s.trials),
          fmt::format("{:.2f}", s.accuracy),
          fmt::format("{:.2f}-{:.2f}", s.accuracy_low, s.accuracy_high),
          fmt::format("{:.2f}", s.digit_accuracy),
          report::format_number(s.nll)};
}

report::Table passkey_table(const eval::PasskeyResult& result) {
  report::Table table{.title = "",
                      .header = {"length", "depth", "correct", "accuracy", "95 % interval", "digits", "nll"},
                      .rows = {},
                      .align = {}};
  size_t cell = 0;
  for (const eval::PasskeyTotal& total : result.totals) {
    const size_t depths = result.cells.size() / result.totals.size();
    for (size_t d = 0; d < depths; ++d, ++cell)
      table.rows.push_back(
          passkey_row(total.length, fmt::format("{:g}", result.cells[cell].depth), result.cells[cell].score));
    table.rows.push_back(passkey_row(total.length, "all", total.score));
  }
  return table;
}

std::string passkey_svg(const eval::PasskeyResult& result, const PasskeyFlags& flags, const LoadedModel& m) {
  report::HeatMap map{.title = fmt::format("Passkey accuracy, {} ({})", enum_name(m.model.spec.attention),
                                           scaling_text(m.used_scaling)),
                      .x_label = "length (tokens)",
                      .y_label = "depth"};
  for (const int64_t length : flags.lengths) map.x_ticks.push_back(fmt::format("{}", length));
  for (size_t d = 0; d < flags.depths.size(); ++d) {
    map.y_ticks.push_back(fmt::format("{:g}", flags.depths[d]));
    map.values.emplace_back();
    for (size_t l = 0; l < flags.lengths.size(); ++l)
      map.values.back().push_back(result.cells[l * flags.depths.size() + d].score.accuracy);
  }
  return report::render_svg(map);
}

int run_passkey(PasskeyFlags& flags) {
  check_outputs(flags.output);
  const LoadedModel m = load_with_flags(flags);
  std::optional<report::Progress> progress;
  eval::PasskeyOptions options{.lengths = flags.lengths,
                               .depths = flags.depths,
                               .trials = flags.trials,
                               .wording = flags.wording,
                               .digits = flags.digits,
                               .seed = flags.seed,
                               .bos = flags.bos,
                               .scaling = m.scaling,
                               .batch_tokens = flags.batch_tokens};
  options.progress = [&](const eval::PasskeyProgress& p) {
    if (!progress) progress = make_progress({.total = p.total, .unit = "prompts", .label = "passkey"});
    progress->update(p.done, fmt::format("length {} correct {}/{}", p.length, p.correct, p.tried));
  };
  Context cx;
  const eval::PasskeyResult result =
      eval::passkey(cx, m.model.spec, m.model.params->weights(), *m.tokenizer, options);
  if (progress) progress->finish();
  const report::Table table = passkey_table(result);
  print_model_line(flags.model, m);
  print(bos_text(result.bos, "in front of every prompt, which counts it", "") +
        fmt::format("; wording {}; {} trials a cell; greedy, all {} digits must be right; peak memory {}\n\n",
                    enum_name(flags.wording), flags.trials, flags.digits,
                    report::format_bytes(peak_resident_bytes())));
  print(report::to_text(table));
  note_extrapolation(m, flags.lengths);
  ordered_json json = header_json(flags.model, m, io::options_to_json(flags));
  json["cells"] = ordered_json::array();
  for (const eval::PasskeyCell& cell : result.cells) {
    ordered_json j{{"length", cell.length}, {"depth", cell.depth}};
    fill_score(j, cell.score);
    json["cells"].push_back(std::move(j));
  }
  json["totals"] = ordered_json::array();
  for (const eval::PasskeyTotal& total : result.totals) {
    ordered_json j{{"length", total.length},
                   {"least_tokens", total.least_tokens},
                   {"most_tokens", total.most_tokens},
                   {"seconds", total.seconds},
                   {"peak_resident_bytes", total.peak_resident_bytes}};
    fill_score(j, total.score);
    json["totals"].push_back(std::move(j));
  }
  write_outputs(flags.output, json, "cells", [&] { return passkey_svg(result, flags, m); });
  return 0;
}

template <class Flags>
void add_one(CLI::App& eval_app, Action* action, const char* name, const char* help, const char* example,
             int (*run)(Flags&)) {
  CLI::App* app = eval_app.add_subcommand(name, help);
  auto options = std::make_shared<Flags>();
  auto flags = std::make_shared<OptionFlags>(*app, *options);
  flags->add_config_flag();
  app->footer(example);
  app->callback([=] {
    *action = [=] {
      flags->finish();
      return run(*options);
    };
  });
}

}  // namespace

void add_eval(CLI::App& root, Action* action) {
  CLI::App* app =
      root.add_subcommand("eval", "Evaluate a model at several lengths: perplexity, passkey retrieval");
  app->require_subcommand(1);
  add_one<PplFlags>(*app, action, "ppl", "Sliding-window perplexity by window length",
                    "Example: coca eval ppl --model out/model --text books/test --lengths 512,1024,2048 "
                    "--rope-scaling dynamic --factor 4",
                    run_ppl);
  add_one<PasskeyFlags>(*app, action, "passkey", "Passkey retrieval by length and depth",
                        "Example: coca eval passkey --model out/model --lengths 512,1024,2048 --trials 20",
                        run_passkey);
}

}  // namespace coca::tools

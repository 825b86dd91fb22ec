// SPDX-License-Identifier: Apache-2.0
#include "coca/study/report.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "coca/base/count.h"
#include "coca/base/log.h"
#include "coca/base/version.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/report/chart.h"
#include "coca/report/write.h"

namespace coca::study {

namespace {

// The lines, and what of a summary they show.
const SeedMean& perplexity_of(const SummaryPoint& p) { return p.perplexity; }
const SeedMean& accuracy_of(const SummaryPoint& p) { return p.passkey_accuracy; }
const SeedMean& digits_of(const SummaryPoint& p) { return p.passkey_digits; }

std::string mean_text(const SeedMean& s) {
  std::string text = report::format_number(s.mean);
  if (s.n > 1) text += " ± " + report::format_number(s.half_width(), 2);
  return text;
}
// The interval of a share is not symmetric.
std::string share_text(const SeedMean& s) {
  return s.n > 1 ? fmt::format("{:.2f} ({:.2f} to {:.2f})", s.mean, s.low, s.high) : fmt::format("{:.2f}", s.mean);
}

template <typename At>
report::Table length_table(const StudyResults& s, const std::string& title, const At& at,
                           std::string (*text)(const SeedMean&)) {
  report::Table table{.title = title, .header = {"method"}, .rows = {}, .align = {}};
  for (size_t i = 0; i < s.config.multiples.size(); ++i)
    table.header.push_back(fmt::format("{} ({}x)", s.config.multiples[i] * s.config.length, s.config.multiples[i]));
  for (const SummaryLine& line : summarise(s)) {
    std::vector<std::string> row{line.name()};
    for (const SummaryPoint& point : line.points) row.push_back(text(at(point)));
    table.rows.push_back(std::move(row));
  }
  return table;
}

template <typename At>
report::Chart length_chart(const StudyResults& s, const std::string& title, const std::string& y_label, const At& at) {
  report::Chart chart;
  chart.title = title;
  chart.x_label = "evaluated length (tokens)";
  chart.y_label = y_label;
  chart.x_scale = report::Scale::kLog2;
  chart.vertical_line = report::Marker{static_cast<double>(s.config.length), "trained length"};
  for (const SummaryLine& line : summarise(s)) {
    report::Series series;
    series.label = line.name();
    series.color_index = static_cast<int>(line.method_index);
    series.line = line.variant.empty() ? report::LineStyle::kSolid : report::LineStyle::kDashed;
    for (const SummaryPoint& point : line.points) {
      const SeedMean& value = at(point);
      series.x.push_back(static_cast<double>(point.length));
      series.y.push_back(value.mean);
      if (value.n < 2) continue;
      series.y_low.push_back(std::max(value.low, value.mean * 1e-3));  // a logarithmic axis has no room below 0
      series.y_high.push_back(value.high);
    }
    chart.series.push_back(std::move(series));
  }
  constexpr int64_t kMostBands = 2;  // more that overlap have one colour, which is none of theirs
  if (std::ranges::count_if(chart.series, [](const auto& series) { return !series.y_low.empty(); }) > kMostBands)
    for (report::Series& series : chart.series) series.spread = report::Spread::kErrorBars;
  return chart;
}

report::Chart loss_chart(const StudyResults& s) {
  report::Chart chart;
  chart.title = "Training loss";
  chart.x_label = "step";
  chart.y_label = "loss (nats per token)";
  for (const RunResult& r : s.runs) {
    if (r.seed != s.config.seeds[0]) continue;
    report::Series series;
    series.label = r.method;
    for (const train::MetricsRow& row : r.curve) {
      series.x.push_back(static_cast<double>(row.step));
      series.y.push_back(row.loss);
    }
    chart.series.push_back(std::move(series));
  }
  return chart;
}

bool has_passkey(const StudyResults& s) {
  return std::ranges::any_of(
      s.runs, [](const RunResult& r) { return !r.evaluations.empty() && !r.evaluations[0].passkey.empty(); });
}

std::string run_name(const StudyResults& s, const RunResult& r) {
  return s.config.seeds.size() > 1 ? fmt::format("{} seed {}", r.method, r.seed) : r.method;
}

void add_figure(report::Document& document, const std::string& name, const report::Chart& chart,
                const std::string& caption) {
  document.figure({.name = name, .svg = report::render_svg(chart), .caption = caption});
}

std::string model_sentence(const StudyResults& s) {
  const StudyConfig& c = s.config;
  int64_t parameters = 0, tokens = 0;
  for (const RunResult& r : s.runs) {
    parameters = std::max(parameters, r.parameters);
    tokens = std::max(tokens, r.tokens);
  }
  const std::string passkeys = c.passkey_share == 0
                                   ? ""
                                   : fmt::format(
                                         " All windows of the first {} and {:g} % of the later ones teach the passkey "
                                         "task (prompts, repeated keys, repeated digits).",
                                         counted(c.passkey_first_steps, "step"), 100 * c.passkey_share);
  return fmt::format(
      "{} decoders of {} x {} ({}, {}), trained from scratch at length **{}** on {} each "
      "({} of {}; AdamW, peak learning rate {:g}, cosine decay), same text, same seed, same order for every method.{}",
      enum_name(c.architecture) == "gpt_neox" ? "GPT-NeoX" : "LLaMA", counted(c.layers, "layer"), c.width,
      counted(c.heads, "head"), counted(parameters, "parameter"), c.length, counted(tokens, "token"),
      counted(c.steps, "step"), counted(c.batch, "window"), c.learning_rate, passkeys);
}

void add_reading(const StudyResults& s, report::Document& d) {
  const StudyConfig& c = s.config;
  d.heading(2, "How to read this");
  d.list({fmt::format("**Perplexity**: a window of W tokens slides over each test document with stride {}; only tokens "
                      "not scored before count, the mean is "
                      "token-weighted, no BOS is added, windows never cross documents. Perplexity 1 is certainty; {} "
                      "is a blind guess.",
                      c.stride, c.tokenizer == "byte" ? "256" : "the vocabulary size"),
          "**Dynamic NTK** changes the rotary base at evaluation only, and only beyond the trained length; the weights "
          "are the same as in the row without it.",
          fmt::format("**Passkey**: a {}-digit number hidden in filler text must be repeated; a trial counts when "
                      "greedy decoding gives every digit. "
                      "Intervals in results.json are Wilson's at 95 %.",
                      c.passkey_digits),
          c.seeds.size() > 1
              ? fmt::format("Values are means over n = {} ± the half width of their 95 % interval "
                            "(Student's t with {} of "
                            "freedom), shares with the interval itself, which is never narrower than "
                            "Wilson's for all prompts together; bands in the charts are that interval. It "
                            "covers the seeds alone, not other texts. Differences are tested one by one, "
                            "without a correction for their number.",
                            counted(c.seeds.size(), "seed"), counted(c.seeds.size() - 1, "degree"))
              : std::string("One seed: differences of a few percent between methods are within what "
                            "another seed may change. --seeds 0,1,2 gives intervals."),
          "The models are tiny and briefly trained. What they show about extrapolation is real for them; it is not a "
          "claim about larger models."});
}

}  // namespace

std::vector<TaskRuns> task_runs(const StudyResults& s) {
  std::vector<TaskRuns> runs;
  for (const std::string& method : s.config.methods) {
    TaskRuns& of = runs.emplace_back(TaskRuns{.name = method, .seeds = {}});
    for (const RunResult& r : s.runs)
      if (r.method == method && r.failure.empty()) of.seeds.push_back(r.curve);
    if (of.seeds.empty()) runs.pop_back();
  }
  return runs;
}

report::Table perplexity_table(const StudyResults& s) {
  return length_table(s, "Perplexity by evaluated length", perplexity_of, mean_text);
}
report::Table passkey_table(const StudyResults& s) {
  return length_table(s, "Passkey accuracy (whole keys)", accuracy_of, share_text);
}

report::Table passkey_digits_table(const StudyResults& s) {
  return length_table(s, "Passkey: share of single digits right (chance 0.10)", digits_of, share_text);
}

report::Table training_table(const StudyResults& s) {
  report::Table table{
      .title = "Training",
      .header = {"run", "parameters", "tokens", "train loss", "validation loss", "tokens/s", "time", "skipped"},
      .rows = {},
      .align = {}};
  for (const RunResult& r : s.runs) {
    if (!r.failure.empty()) {
      table.rows.push_back({run_name(s, r), "", "", "given up", "", "", "", ""});
      continue;
    }
    table.rows.push_back({run_name(s, r), grouped(r.parameters), grouped(r.tokens), fmt::format("{:.3f}", r.train_loss),
                          fmt::format("{:.3f}", r.validation_loss), grouped(static_cast<int64_t>(r.tokens_per_second)),
                          report::format_duration(r.seconds), grouped(r.skipped)});
  }
  return table;
}

std::string passkey_note(const StudyResults& s) {
  if (!has_passkey(s)) return "";
  const std::vector<SummaryLine> lines = summarise(s);
  std::string out;
  if (std::ranges::all_of(lines, [](const SummaryLine& l) {
        return std::ranges::all_of(l.points, [](const SummaryPoint& p) { return p.passkey_accuracy.mean == 0; });
      }))
    out = fmt::format(
        "No model found a whole key at any length{}. These zeros say that the models did not learn the task in this "
        "budget; they say nothing about length. ",
        s.config.multiples[0] == 1 ? ", the trained one included" : "");
  std::vector<std::string> unsolved;
  for (const std::string& method : s.config.methods) {
    std::vector<std::string> failed;
    size_t runs = 0;
    for (const RunResult& r : s.runs) {
      if (r.method != method || r.evaluations.empty() || r.evaluations[0].passkey.empty()) continue;
      ++runs;
      if (r.evaluations[0].passkey[0].accuracy < 0.5) failed.push_back(run_name(s, r));
    }
    if (failed.size() == runs && runs > 1) failed = {method + " (all seeds)"};
    unsolved.insert(unsolved.end(), failed.begin(), failed.end());
  }
  if (unsolved.empty()) return out;
  return out + fmt::format(
                   "At {} the passkey task is not solved with this budget by: {}; they find fewer than half of the "
                   "keys there. What they find at greater lengths says little; the share of single digits "
                   "(chance: 0.10) is the finer measure.",
                   s.config.multiples[0] == 1 ? "the trained length itself"
                                              : fmt::format("{}x the trained length", s.config.multiples[0]),
                   fmt::join(unsolved, ", "));
}

report::Document make_document(const StudyResults& s) {
  const std::vector<std::string>& methods = s.config.methods;
  constexpr size_t kMostInTitle = 6;
  report::Document d("Beyond the trained length: " + (methods.size() > kMostInTitle
                                                          ? counted(methods.size(), "method")
                                                          : fmt::format("{}", fmt::join(methods, ", "))));
  d.paragraph(model_sentence(s));
  d.paragraph(s.corpus + ".");
  if (s.shared.documents > 0) {
    d.paragraph(
        "Warning: some test documents are in the training text as well, so the models look better than they are.");
    d.list(data::overlap_sentences(s.shared, "test"));
  }
  d.heading(2, "What was found");
  d.list(findings(s));
  d.heading(2, "Perplexity against length");
  d.table(perplexity_table(s));
  const bool plots = report::gnuplot_available();
  if (plots) {
    report::Chart chart = length_chart(s, "Perplexity by evaluated length", "perplexity", perplexity_of);
    chart.y_scale = report::Scale::kLog;
    add_figure(d, "perplexity", chart, "Both axes are logarithmic. Dashed: the same weights with dynamic NTK scaling.");
  } else {
    d.paragraph(
        "gnuplot is not installed, so there are no plots; the numbers are all in the tables and in results.csv.");
  }
  if (has_passkey(s)) {
    d.heading(2, "Passkey retrieval against length");
    d.table(passkey_table(s));
    d.table(passkey_digits_table(s));
    if (const std::string note = passkey_note(s); !note.empty()) d.paragraph(note);
    if (plots) {
      report::Chart chart = length_chart(s, "Passkey: share of digits right", "share of digits", digits_of);
      chart.y_min = 0;
      chart.y_max = 1;
      add_figure(d, "passkey", chart, "Every length has the same number of prompts, spread over five depths.");
    }
  }
  if (!s.config.tasks.tasks.empty()) add_tasks(d, task_runs(s), s.config.tasks.tasks, task_lengths(s.config));
  d.heading(2, "Training");
  d.table(training_table(s));
  if (plots) add_figure(d, "loss", loss_chart(s), "Mean loss of each logged interval, first seed.");
  d.paragraph(fmt::format(
      "Measured with coca {} ({}), {}. All numbers: results.json, results.csv, summary.csv, runs/*/metrics.csv.",
      version(), git_commit(), s.machine));
  add_reading(s, d);
  return d;
}

StudyFiles write_study(StudyResults& s) {
  const std::filesystem::path out = s.config.out;
  StudyFiles files;
  files.json = out / "results.json";
  files.csv = out / "results.csv";
  io::write_json(files.json, to_json(s));
  io::write_file_atomic(files.csv, to_csv(s));
  files.summary_csv = out / "summary.csv";
  io::write_file_atomic(files.summary_csv, summary_csv(s));
  const report::ReportFiles written = report::write_document(make_document(s), out);
  files.html = written.html;
  files.markdown = written.markdown;
  return files;
}

}  // namespace coca::study

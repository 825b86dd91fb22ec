// SPDX-License-Identifier: Apache-2.0
#include "coca/study/task_results.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "coca/base/count.h"
#include "coca/train/tasks.h"

namespace coca::study {

namespace {

std::optional<double> value_in(const train::MetricsRow& row, const std::string& column) {
  const auto found = row.tasks.find(column);
  return found == row.tasks.end() ? std::nullopt : std::optional(found->second);
}

// Mean over the seeds of each step that all of them have.
report::Series curve_of(const TaskRuns& runs, const std::string& column, std::string label) {
  std::map<int64_t, std::pair<double, size_t>> sums;
  for (const std::vector<train::MetricsRow>& rows : runs.seeds)
    for (const train::MetricsRow& row : rows)
      if (const auto value = value_in(row, column)) {
        sums[row.step].first += *value;
        ++sums[row.step].second;
      }
  report::Series series{.label = std::move(label)};
  for (const auto& [step, sum] : sums)
    if (sum.second == runs.seeds.size()) {
      series.x.push_back(static_cast<double>(step));
      series.y.push_back(sum.first / static_cast<double>(sum.second));
    }
  return series;
}

report::Chart empty_chart(const std::string& title) {
  report::Chart chart;
  chart.title = title;
  chart.x_label = "steps";
  chart.y_label = "right tokens";
  chart.y_min = 0;
  chart.y_max = 1;
  return chart;
}

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

std::string first_step(const report::Series& curve, double share) {
  const auto found = std::ranges::find_if(curve.y, [&](double y) { return y >= share; });
  return found == curve.y.end() ? "-"
                                : grouped(static_cast<int64_t>(curve.x[static_cast<size_t>(found - curve.y.begin())]));
}

}  // namespace

report::Table task_table(const std::vector<TaskRuns>& runs, const std::vector<data::Task>& tasks,
                         const std::vector<int64_t>& lengths) {
  report::Table table{.title = "Tasks: accuracy at the end, and the first measured step with half and 90 % right",
                      .header = {"task", "length", "right tokens", "whole answers", "half at step", "90 % at step"},
                      .rows = {},
                      .align = {report::Align::kLeft}};
  const bool named = runs.size() > 1;
  if (named) {
    table.header.insert(table.header.begin(), "run");
    table.align.push_back(report::Align::kLeft);
  }
  for (const data::Task task : tasks)
    for (const int64_t length : lengths)
      for (const TaskRuns& run : runs) {
        const std::string column = train::task_column(task, length);
        const report::Series right = curve_of(run, column, ""), whole = curve_of(run, column + "_whole", "");
        if (right.y.empty() || whole.y.empty()) continue;
        std::vector<std::string> row = {std::string(enum_name(task)), grouped(length),        percent(right.y.back()),
                                        percent(whole.y.back()),      first_step(right, 0.5), first_step(right, 0.9)};
        if (named) row.insert(row.begin(), run.name);
        table.rows.push_back(std::move(row));
      }
  return table;
}

report::Chart task_chart(const std::vector<TaskRuns>& runs, data::Task task, int64_t length) {
  report::Chart chart = empty_chart(fmt::format("{} at {}", enum_name(task), counted(length, "token")));
  for (const TaskRuns& run : runs) chart.series.push_back(curve_of(run, train::task_column(task, length), run.name));
  return chart;
}

report::Chart task_chart(const TaskRuns& run, data::Task task, const std::vector<int64_t>& lengths) {
  report::Chart chart = empty_chart(std::string(enum_name(task)));
  for (const int64_t length : lengths)
    chart.series.push_back(curve_of(run, train::task_column(task, length), counted(length, "token")));
  return chart;
}

void add_tasks(report::Document& d, const std::vector<TaskRuns>& runs, const std::vector<data::Task>& tasks,
               const std::vector<int64_t>& lengths) {
  d.heading(2, "Tasks");
  d.table(task_table(runs, tasks, lengths));
  if (!report::gnuplot_available())
    return d.paragraph("gnuplot is not installed, so there are no charts; metrics.csv has every measurement.");
  const auto figure = [&](const std::string& name, const report::Chart& chart) {
    d.figure({.name = name,
              .svg = report::render_svg(chart),
              .caption = "Share of the tokens asked for that have the largest logit, each after the right tokens "
                         "before it, on windows that are not trained on."});
  };
  for (const data::Task task : tasks) {
    const std::string name = fmt::format("task-{}", enum_name(task));
    if (runs.size() == 1) figure(name, task_chart(runs.front(), task, lengths));
    if (runs.size() > 1)
      for (const int64_t length : lengths) figure(fmt::format("{}-{}", name, length), task_chart(runs, task, length));
  }
}

}  // namespace coca::study

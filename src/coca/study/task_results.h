// coca/study/task_results.h - how the accuracy in synthetic tasks (train/tasks.h) grew over trainings: tables and
// charts from their metrics.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "coca/data/task.h"
#include "coca/report/chart.h"
#include "coca/report/document.h"
#include "coca/report/table.h"
#include "coca/train/metrics.h"

namespace coca::study {

// The trainings of one name: its seeds, whose mean is shown.
struct TaskRuns {
  std::string name;  // may be empty if there is one
  std::vector<std::vector<train::MetricsRow>> seeds;
};

// By run, task and length: accuracy at the end, whole answers, and the first step with half and with 90 % right.
report::Table task_table(const std::vector<TaskRuns>&, const std::vector<data::Task>&,
                         const std::vector<int64_t>& lengths);
// Accuracy against steps at one length, a line for each name.
report::Chart task_chart(const std::vector<TaskRuns>&, data::Task, int64_t length);
// The same of one name, a line for each length.
report::Chart task_chart(const TaskRuns&, data::Task, const std::vector<int64_t>& lengths);
// Heading, table, and charts if gnuplot is there: by length for one name, else by name.
void add_tasks(report::Document&, const std::vector<TaskRuns>&, const std::vector<data::Task>&,
               const std::vector<int64_t>& lengths);

}  // namespace coca::study

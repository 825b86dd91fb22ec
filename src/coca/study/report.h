// coca/study/report.h - tables, charts and files from the results of a study.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

#include "coca/report/document.h"
#include "coca/study/results.h"
#include "coca/study/task_results.h"

namespace coca::study {

// Rows: method and variant; columns: lengths. Several seeds: mean and half its 95 % interval.
report::Table perplexity_table(const StudyResults&);
report::Table passkey_table(const StudyResults&);
report::Table passkey_digits_table(const StudyResults&);
report::Table training_table(const StudyResults&);

// The curves of the methods that were trained on tasks.
std::vector<TaskRuns> task_runs(const StudyResults&);

// Findings in sentences made from the numbers alone (findings.cc). A difference is stated if the 95 %
// interval of its paired difference over seeds excludes zero; with one seed there are numbers and no conclusion.
std::vector<std::string> findings(const StudyResults&);

// The models that did not learn the passkey task, and what their figures mean. Empty if all did, or if it was not
// measured.
std::string passkey_note(const StudyResults&);

report::Document make_document(const StudyResults&);

struct StudyFiles {
  std::filesystem::path html, markdown, json, csv, summary_csv;
};
// Writes report.html, report.md, figures/*.svg, results.json, results.csv (a row a seed) and summary.csv (over seeds)
// into config.out.
StudyFiles write_study(StudyResults&);

}  // namespace coca::study

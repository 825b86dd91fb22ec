// coca/train/metrics.h - metrics.csv: one row per log interval, and the same as scalars for TensorBoard. On resume,
// rows beyond the checkpoint are dropped first.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "coca/io/csv.h"
#include "coca/io/event_file.h"

namespace coca::train {

struct StepReport;
struct TrainState;

class MetricsFile {
 public:
  // Keeps the rows up to `step` of an existing file. events: folder of event files, or empty for none. tasks: the
  // columns of an exam (tasks.h).
  MetricsFile(const std::filesystem::path& file, int64_t step, const std::filesystem::path& events = {},
              const std::vector<std::string>& tasks = {});
  // A row that cannot be written is kept for the next call; the first time, a warning is logged.
  void row(const StepReport&, double mean_loss, const TrainState&);
  void flush();  // Error kIo if it fails

 private:
  std::unique_ptr<io::CsvWriter> writer_;
  size_t task_columns_;
  std::unique_ptr<io::EventFile> events_;
  bool warned_ = false;
};

struct MetricsRow {
  int64_t step = 0;
  double loss = 0, validation_loss = 0;  // NaN if there is none
  std::map<std::string, double> tasks;   // accuracies by column, of a step with an exam
  bool measured = false;                 // has a validation loss, or an exam
};
std::vector<MetricsRow> read_metrics(const std::filesystem::path& file);

}  // namespace coca::train

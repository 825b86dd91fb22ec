// SPDX-License-Identifier: Apache-2.0
#include "coca/train/metrics.h"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>
#include <utility>

#include "coca/base/count.h"
#include "coca/base/log.h"
#include "coca/io/fs.h"
#include "coca/train/loop.h"

namespace coca::train {

namespace {

const std::vector<std::string> kHeader = {
    "step",    "tokens", "loss", "validation_loss", "learning_rate", "grad_norm", "tokens_per_second",
    "skipped", "seconds"};

using Rows = std::vector<std::vector<std::string>>;

// Complete rows, the header first; a row cut short by a kill is left out.
Rows rows_of(const std::filesystem::path& file) {
  const std::string text = io::read_file(file);
  size_t complete = 0;
  Rows rows = io::parse_csv(text, &complete);
  if (complete < text.size()) rows.pop_back();
  return rows;
}

std::optional<int64_t> step_of(const std::vector<std::string>& row) {
  const std::string& text = row.at(0);
  int64_t step = 0;
  const auto [at, error] = std::from_chars(text.data(), text.data() + text.size(), step);
  return error == std::errc() && at == text.data() + text.size() ? std::optional(step) : std::nullopt;
}

}  // namespace

MetricsFile::MetricsFile(const std::filesystem::path& file, int64_t step, const std::filesystem::path& events,
                         const std::vector<std::string>& tasks)
    : task_columns_(tasks.size()) {
  std::vector<std::string> header = kHeader;
  header.insert(header.end(), tasks.begin(), tasks.end());
  if (!events.empty()) events_ = std::make_unique<io::EventFile>(events, step);
  if (step > 0 && io::is_regular_file(file)) {
    std::string kept;
    const Rows rows = rows_of(file);
    for (size_t i = 0; i < rows.size(); ++i) {
      const std::optional<int64_t> at = step_of(rows[i]);
      if (i == 0 || (at && *at <= step)) kept += io::csv_line(rows[i]);
    }
    io::write_file_atomic(file, kept);
    writer_ = std::make_unique<io::CsvWriter>(file, header, io::CsvWriter::Mode::kAppend);
  } else {
    writer_ = std::make_unique<io::CsvWriter>(file, header, io::CsvWriter::Mode::kTruncate);
  }
}

void MetricsFile::row(const StepReport& r, double mean_loss, const TrainState& state) {
  std::vector<std::string> row = {std::to_string(r.step),
                                  std::to_string(state.tokens),
                                  io::csv_number(mean_loss),
                                  r.validation_loss ? io::csv_number(*r.validation_loss) : "",
                                  io::csv_number(r.learning_rate),
                                  io::csv_number(r.grad_norm),
                                  io::csv_number(std::round(r.tokens_per_second)),
                                  std::to_string(r.skipped),
                                  io::csv_number(std::round(state.seconds * 1000) / 1000)};
  for (const TaskScore& score : r.tasks)
    for (const double share : {score.accuracy(), score.whole()}) row.push_back(io::csv_number(share));
  row.resize(kHeader.size() + task_columns_);
  writer_->row(row);
  if (events_) {
    std::vector<io::Scalar> scalars = {{"loss", mean_loss},
                                       {"learning_rate", r.learning_rate},
                                       {"grad_norm", r.grad_norm},
                                       {"tokens_per_second", r.tokens_per_second}};
    if (r.validation_loss) scalars.push_back({"validation_loss", *r.validation_loss});
    for (const TaskScore& score : r.tasks) scalars.push_back({task_column(score.task, score.length), score.accuracy()});
    events_->add(r.step, scalars);
  }
  try {
    flush();
  } catch (const Error& error) {  // the row is kept and written with the next one
    if (!std::exchange(warned_, true)) log_warning("{}; training continues", error.what());
  }
}

void MetricsFile::flush() {
  writer_->flush();
  if (events_) events_->flush();
}

std::vector<MetricsRow> read_metrics(const std::filesystem::path& file) {
  std::vector<MetricsRow> rows;
  const Rows cells = rows_of(file);
  for (size_t i = 1; i < cells.size(); ++i) {
    const size_t columns = std::max(kHeader.size(), cells[0].size());
    COCA_CHECK_AS(kBadFile, cells[i].size() == columns, "{}: line {} has {}; expected {}", file.string(), i + 1,
                  counted(cells[i].size(), "cell"), columns);
    const auto number = [&](size_t column) {
      const std::string& text = cells[i][column];
      return text.empty() ? std::numeric_limits<double>::quiet_NaN() : std::strtod(text.c_str(), nullptr);
    };
    const std::optional<int64_t> step = step_of(cells[i]);
    COCA_CHECK_AS(kBadFile, step, "{}: line {}: step \"{}\" is not a whole number", file.string(), i + 1, cells[i][0]);
    MetricsRow row{.step = *step, .loss = number(2), .validation_loss = number(3), .tasks = {}};
    for (size_t column = kHeader.size(); column < columns; ++column)
      if (!cells[i][column].empty()) row.tasks[cells[0][column]] = number(column);
    row.measured = columns == kHeader.size() ? !std::isnan(row.validation_loss) : !row.tasks.empty();
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace coca::train

// SPDX-License-Identifier: Apache-2.0
#include "coca/train/metrics.h"

#include <cmath>
#include <cstdlib>
#include <limits>

#include "coca/io/fs.h"
#include "coca/train/trainer.h"

namespace coca::train {

namespace {

const std::vector<std::string> kHeader = {"step", "tokens", "loss", "validation_loss", "learning_rate", "grad_norm",
                                          "tokens_per_second", "skipped", "seconds"};

std::vector<std::string> lines_of(const std::filesystem::path& file) {
  std::vector<std::string> lines;
  std::string text = io::read_file(file);
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    if (end == std::string::npos) break;  // a row cut short by a kill
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

}  // namespace

MetricsFile::MetricsFile(const std::filesystem::path& file, int64_t step) {
  if (step > 0 && std::filesystem::exists(file)) {
    std::string kept;
    const std::vector<std::string> lines = lines_of(file);
    for (size_t i = 0; i < lines.size(); ++i)
      if (i == 0 || std::atoll(lines[i].c_str()) <= step) kept += lines[i] + "\n";
    io::write_file_atomic(file, kept);
    writer_ = std::make_unique<io::CsvWriter>(file, kHeader, io::CsvWriter::Mode::kAppend);
  } else {
    writer_ = std::make_unique<io::CsvWriter>(file, kHeader, io::CsvWriter::Mode::kTruncate);
  }
}

void MetricsFile::row(const StepReport& r, double mean_loss, const TrainState& state) {
  writer_->row({std::to_string(r.step), std::to_string(state.tokens), io::csv_number(mean_loss),
                r.validation_loss ? io::csv_number(*r.validation_loss) : "", io::csv_number(r.learning_rate),
                io::csv_number(r.grad_norm), io::csv_number(std::round(r.tokens_per_second)), std::to_string(r.skipped),
                io::csv_number(std::round(state.seconds * 1000) / 1000)});
  writer_->flush();
}

void MetricsFile::flush() { writer_->flush(); }

std::vector<MetricsRow> read_metrics(const std::filesystem::path& file) {
  std::vector<MetricsRow> rows;
  const std::vector<std::string> lines = lines_of(file);
  for (size_t i = 1; i < lines.size(); ++i) {
    std::vector<std::string> cells{""};
    for (const char c : lines[i]) {
      if (c == ',')
        cells.emplace_back();
      else
        cells.back().push_back(c);
    }
    COCA_CHECK_AS(kBadFile, cells.size() == kHeader.size(), "{}: line {} has {} cells; expected {}", file.string(), i + 1, cells.size(), kHeader.size());
    rows.push_back({std::atoll(cells[0].c_str()), std::strtod(cells[2].c_str(), nullptr),
                    cells[3].empty() ? std::numeric_limits<double>::quiet_NaN() : std::strtod(cells[3].c_str(), nullptr)});
  }
  return rows;
}

}  // namespace coca::train

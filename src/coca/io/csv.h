// coca/io/csv.h - CSV tables with RFC 4180 quoting and lines that end with "\n".
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace coca::io {

// Rows are written as they come. Into a stream (OutputPlace of fs.h), the header and rows are written in every mode.
class CsvWriter {
 public:
  enum class Mode {
    kTruncate,
    kAppend,  // an existing header must be equal; a last row torn by a crash is cut off
  };
  CsvWriter(const std::filesystem::path& file, const std::vector<std::string>& header, Mode mode);
  ~CsvWriter();
  CsvWriter(const CsvWriter&) = delete;
  CsvWriter& operator=(const CsvWriter&) = delete;

  void row(const std::vector<std::string>& fields);  // as many as the header has
  void flush();                                      // to the operating system

 private:
  std::filesystem::path path_;
  size_t columns_;
  int fd_ = -1;
  std::string buffer_;
};

// All records of a CSV text; `complete_bytes` receives the length of those that end in a newline.
std::vector<std::vector<std::string>> parse_csv(std::string_view text, size_t* complete_bytes = nullptr);
// One record with its newline.
std::string csv_line(const std::vector<std::string>& fields);
// Shortest text that reads back as the same double; "nan", "inf", "-inf".
std::string csv_number(double value);

}  // namespace coca::io

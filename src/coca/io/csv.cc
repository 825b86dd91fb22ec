// coca/io/csv.cc - see csv.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/io/csv.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/base/log.h"
#include "coca/io/fs.h"
#include "coca/io/system_error.h"

namespace coca::io {

namespace {
constexpr size_t kBufferBytes = 1 << 16;
}

std::string csv_line(const std::vector<std::string>& fields) {
  std::string line;
  for (size_t i = 0; i < fields.size(); ++i) {
    if (i > 0) line += ',';
    // A lone empty field is quoted, because an empty line would be no record at all.
    if (fields[i].find_first_of(",\"\r\n") == std::string::npos && !(fields.size() == 1 && fields[i].empty())) {
      line += fields[i];
      continue;
    }
    line += '"';
    for (const char c : fields[i]) {
      if (c == '"') line += '"';
      line += c;
    }
    line += '"';
  }
  return line + "\n";
}

std::vector<std::vector<std::string>> parse_csv(std::string_view text, size_t* complete_bytes) {
  std::vector<std::vector<std::string>> records;
  std::vector<std::string> record;
  std::string field;
  enum { kPlain, kQuoted, kAfterQuote } state = kPlain;
  bool started = false;
  size_t complete = 0;
  const size_t mark = text.starts_with("\xef\xbb\xbf") ? 3 : 0;  // of spreadsheets
  for (size_t i = mark; i < text.size(); ++i) {
    const char c = text[i];
    if (state == kQuoted) {
      if (c != '"')
        field += c;
      else
        state = kAfterQuote;
    } else if (c == '"') {
      if (state == kAfterQuote) field += '"';  // a doubled quote
      state = kQuoted;
      started = true;
    } else if (c == ',') {
      record.push_back(std::move(field));
      field.clear();
      state = kPlain;
      started = true;
    } else if (c == '\n') {
      if (started) {
        record.push_back(std::move(field));
        records.push_back(std::move(record));
      }
      field.clear();
      record.clear();
      state = kPlain;
      started = false;
      complete = i + 1;
    } else if (c != '\r' || i + 1 >= text.size() || text[i + 1] != '\n') {
      field += c;
      started = true;
    }
  }
  if (started) {
    record.push_back(std::move(field));
    records.push_back(std::move(record));
  }
  if (complete_bytes != nullptr) *complete_bytes = complete;
  return records;
}

std::string csv_number(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  return fmt::format("{}", value);
}

CsvWriter::CsvWriter(const std::filesystem::path& file, const std::vector<std::string>& header, Mode mode)
    : path_(file), columns_(header.size()) {
  COCA_CHECK(columns_ > 0, "{}: a CSV file needs at least one column", file.string());
  const std::string header_line = csv_line(header);
  const OutputPlace place = output_place(file);
  size_t keep = 0;
  if (place.stream) {
    fd_ = open_stream(place, file);
    buffer_ = header_line;
    return;
  }
  if (mode == Mode::kAppend && io::exists(file)) {
    const std::string existing = read_file(file);
    parse_csv(existing, &keep);
    const auto records = parse_csv(std::string_view(existing).substr(0, keep));
    if (!records.empty() && records.front() != header) {
      fail(ErrorKind::kBadFile, "{}: cannot append: its header is {} where {} is expected", file.string(),
           csv_line(records.front()).substr(0, 200), header_line.substr(0, header_line.size() - 1));
    }
    if (records.empty()) keep = 0;
    if (keep < existing.size())
      log_warning("{}: cut off the last {}, an unfinished row", file.string(), counted(existing.size() - keep, "byte"));
  }
  fd_ = ::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (fd_ < 0) fail_errno(file, "cannot create", errno);
  if (::ftruncate(fd_, static_cast<off_t>(keep)) != 0 || ::lseek(fd_, 0, SEEK_END) < 0) {
    const int error = errno;
    ::close(fd_);
    fail_errno(file, "cannot write", error);
  }
  if (keep == 0) buffer_ = header_line;
}

CsvWriter::~CsvWriter() {
  try {
    flush();
  } catch (const Error& error) {  // a destructor must not throw; whoever needs to know calls flush()
    log_message(LogLevel::kError, error.what());
  }
  ::close(fd_);
}

void CsvWriter::row(const std::vector<std::string>& fields) {
  COCA_CHECK(fields.size() == columns_, "{}: row of {} in a table of {}", path_.string(),
             counted(fields.size(), "field"), counted(columns_, "column"));
  buffer_ += csv_line(fields);
  if (buffer_.size() >= kBufferBytes) flush();
}

void CsvWriter::flush() {
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t n = ::write(fd_, buffer_.data() + done, buffer_.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      buffer_.erase(0, done);
      fail_errno(path_, "cannot write", error);
    }
    done += static_cast<size_t>(n);
  }
  buffer_.clear();
}

}  // namespace coca::io

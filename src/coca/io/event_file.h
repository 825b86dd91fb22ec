// coca/io/event_file.h - scalars in TensorBoard's event files: protobuf messages (Event, Summary, SessionLog) in
// TFRecord frames. Each is its length, that length's checksum, the bytes and theirs; checksums are masked CRC-32C.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace coca::io {

struct Scalar {
  std::string_view tag;
  double value;  // kept as a float
};

// One new file in a folder; TensorBoard reads all of a folder in the order of their names.
class EventFile {
 public:
  // Invalidates all that earlier files of the folder hold after `step`; a session starts there, from a checkpoint or
  // afresh (0). Makes the folder. Error kIo if it cannot be written.
  EventFile(const std::filesystem::path& folder, int64_t step);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  // Kept until flush().
  void add(int64_t step, const std::vector<Scalar>& scalars);
  void flush();  // Error kIo; unwritten data is kept for the next call
  const std::filesystem::path& path() const { return path_; }

 private:
  void record(std::string_view event);

  std::filesystem::path path_;
  int fd_ = -1;
  std::string pending_;
};

}  // namespace coca::io

// SPDX-License-Identifier: Apache-2.0
#include "coca/io/event_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "coca/base/error.h"
#include "coca/io/fs.h"
#include "coca/io/hash.h"
#include "coca/io/system_error.h"

namespace coca::io {

namespace {

// Protobuf: a field's number and kind, then its value. Little-endian, as TFRecord is.
enum class Wire : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

template <typename T>
void put_fixed(std::string& out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>(value >> (8 * i) & 0xff);
}
void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}
void put_key(std::string& out, uint64_t field, Wire wire) { put_varint(out, field << 3 | static_cast<uint64_t>(wire)); }
void put_bytes(std::string& out, uint64_t field, std::string_view bytes) {
  put_key(out, field, Wire::kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}

// Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; SessionLog session_log =
// 7; }
std::string event(int64_t step, uint64_t field, std::string_view content) {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  std::string out;
  put_key(out, 1, Wire::kFixed64);
  put_fixed(out, std::bit_cast<uint64_t>(now.count()));
  put_key(out, 2, Wire::kVarint);
  put_varint(out, static_cast<uint64_t>(step));
  put_bytes(out, field, content);
  return out;
}
constexpr uint64_t kFileVersion = 3, kSummary = 5, kSessionLog = 7;

// SessionLog { SessionStatus status = 1; } with START = 1: TensorBoard drops what it has of this step and beyond.
std::string session_start() {
  std::string out;
  put_key(out, 1, Wire::kVarint);
  put_varint(out, 1);
  return out;
}

// Summary { repeated Value value = 1; }, Value { string tag = 1; float simple_value = 2; }
std::string summary(const std::vector<Scalar>& scalars) {
  std::string out;
  for (const Scalar& scalar : scalars) {
    std::string value;
    put_bytes(value, 1, scalar.tag);
    put_key(value, 2, Wire::kFixed32);
    put_fixed(value, std::bit_cast<uint32_t>(static_cast<float>(scalar.value)));
    put_bytes(out, 1, value);
  }
  return out;
}

uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes.data(), bytes.size());
  return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

// Names sort by time, so that a later file of a run is read later.
std::filesystem::path new_name(const std::filesystem::path& folder) {
  const auto now =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  char host[256] = "host";
  gethostname(host, sizeof host - 1);
  return folder / fmt::format("events.out.tfevents.{:010}.{:03}.{}.{}.coca", now / 1000, now % 1000, host, ::getpid());
}

}  // namespace

EventFile::EventFile(const std::filesystem::path& folder, int64_t step) {
  make_dirs(folder);
  path_ = new_name(folder);
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) fail_errno(path_, "cannot be made", errno);
  record(event(0, kFileVersion, "brain.Event:2"));
  record(event(step + 1, kSessionLog, session_start()));
  flush();
}

EventFile::~EventFile() { ::close(fd_); }

void EventFile::record(std::string_view bytes) {
  std::string length;
  put_fixed(length, static_cast<uint64_t>(bytes.size()));
  pending_ += length;
  put_fixed(pending_, masked_crc(length));
  pending_ += bytes;
  put_fixed(pending_, masked_crc(bytes));
}

void EventFile::add(int64_t step, const std::vector<Scalar>& scalars) {
  record(event(step, kSummary, summary(scalars)));
}

void EventFile::flush() {
  while (!pending_.empty()) {
    const ssize_t written = ::write(fd_, pending_.data(), pending_.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_errno(path_, "cannot write", errno);
    pending_.erase(0, static_cast<size_t>(written));
  }
}

}  // namespace coca::io

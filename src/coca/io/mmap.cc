// coca/io/mmap.cc - see mmap.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/io/mmap.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "coca/base/error.h"
#include "coca/io/system_error.h"

namespace coca::io {

MappedFile::MappedFile(const std::filesystem::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail_errno(file, "cannot open", errno);
  struct stat info {};
  const char* problem = nullptr;
  void* data = nullptr;
  size_t size = 0;
  if (::fstat(fd, &info) != 0) {
    problem = std::strerror(errno);
  } else if (!S_ISREG(info.st_mode)) {
    problem = S_ISDIR(info.st_mode) ? "is a folder, not a file" : "is not a regular file";
  } else if (info.st_size > 0) {
    size = static_cast<size_t>(info.st_size);
    data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) problem = std::strerror(errno);
  }
  ::close(fd);
  COCA_CHECK_AS(kIo, problem == nullptr, "{}: cannot map: {}", file.string(), problem);
  bytes_ = {static_cast<const std::byte*>(data), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

void MappedFile::release(std::span<const std::byte> part) const {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto file = reinterpret_cast<uintptr_t>(bytes_.data()), data = reinterpret_cast<uintptr_t>(part.data());
  if (data < file || data + part.size() > file + bytes_.size()) return;
  const uintptr_t begin = (data + page - 1) / page * page, end = (data + part.size()) / page * page;
  if (begin < end) ::madvise(const_cast<std::byte*>(bytes_.data()) + (begin - file), end - begin, MADV_DONTNEED);
}

}  // namespace coca::io

// SPDX-License-Identifier: Apache-2.0
#include "coca/io/lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "coca/base/error.h"
#include "coca/io/system_error.h"

namespace coca::io {

namespace fs = std::filesystem;

FolderLock::FolderLock(const fs::path& dir) {
  const fs::path file = dir / ".lock";
  fd_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd_ < 0) fail_errno(dir, "cannot lock the folder", errno);
  int status = -1;
  do status = ::flock(fd_, LOCK_EX | LOCK_NB);
  while (status != 0 && errno == EINTR);
  if (status != 0) {
    const int error = errno;
    char holder[32] = {};
    const ssize_t n = ::pread(fd_, holder, sizeof holder - 1, 0);
    ::close(fd_);
    if (error != EWOULDBLOCK) fail_errno(dir, "cannot lock the folder", error);
    fail(ErrorKind::kIo, "{}: another process{} writes to this folder; wait for it, or choose another", dir.string(),
         n > 0 ? fmt::format(" ({})", std::string(holder, static_cast<size_t>(n))) : "");
  }
  // For the other's message only: what cannot be written is left out.
  const std::string text = std::to_string(::getpid());
  if (::ftruncate(fd_, 0) != 0 || ::pwrite(fd_, text.data(), text.size(), 0) < 0) return;
}

FolderLock::~FolderLock() { ::close(fd_); }

void remove_leftovers(const fs::path& dir) {
  std::error_code ignored;
  for (fs::directory_iterator it(dir, ignored), end; !ignored && it != end; it.increment(ignored)) {
    std::error_code kept;
    if (it->path().filename().string().starts_with(".tmp-")) fs::remove_all(it->path(), kept);
  }
}

}  // namespace coca::io

// SPDX-License-Identifier: Apache-2.0
#include "coca/io/lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "coca/base/error.h"
#include "coca/io/fs.h"
#include "coca/io/system_error.h"

namespace coca::io {

namespace fs = std::filesystem;

namespace {

// Locks the open file, or closes it and throws.
void lock_or_close(const fs::path& dir, int fd, int how) {
  int status = -1;
  do status = ::flock(fd, how | LOCK_NB);
  while (status != 0 && errno == EINTR);
  if (status == 0) return;
  const int error = errno;
  char holder[32] = {};
  const ssize_t n = ::pread(fd, holder, sizeof holder - 1, 0);
  const std::string id(holder, static_cast<size_t>(std::max<ssize_t>(n, 0)));
  ::close(fd);
  if (error != EWOULDBLOCK) fail_errno(dir, "cannot lock the folder", error);
  fail(ErrorKind::kIo, "{}: another process{} writes to this folder; wait for it, or choose another", dir.string(),
       id.empty() ? "" : fmt::format(" ({})", id));
}

// Whether the file has been removed since it was opened: a lock on it would keep nobody out.
bool is_gone(int fd, const fs::path& file) {
  struct stat open_file {
  }, at_path{};
  return ::fstat(fd, &open_file) != 0 || ::stat(file.c_str(), &at_path) != 0 || open_file.st_ino != at_path.st_ino ||
         open_file.st_dev != at_path.st_dev;
}

}  // namespace

void FolderLock::check_free(const fs::path& dir) {
  const int fd = ::open((dir / ".lock").c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;  // nobody has written here, or nobody can
  lock_or_close(dir, fd, LOCK_SH);
  ::close(fd);
}

FolderLock::FolderLock(const fs::path& dir) {
  const fs::path file = dir / ".lock";
  for (;;) {
    make_dirs(dir);
    fd_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd_ < 0 && errno == ENOENT) continue;  // a run that was refused has just removed its folder
    if (fd_ < 0) fail_errno(dir, "cannot lock the folder", errno);
    lock_or_close(dir, fd_, LOCK_EX);
    if (!is_gone(fd_, file)) break;
    ::close(fd_);
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

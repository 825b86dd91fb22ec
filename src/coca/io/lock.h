// coca/io/lock.h - one writer of a folder at a time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

namespace coca::io {

// Holds a lock (flock) on the file ".lock" in `dir` until it is destroyed or the process ends, in whatever way. Error kIo
// where another process has it, naming that process, or where the file cannot be made. The file stays.
class FolderLock {
 public:
  explicit FolderLock(const std::filesystem::path& dir);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_ = -1;
};

// Removes what killed writers left in `dir`: files and folders named ".tmp-...". For the holder of the lock.
void remove_leftovers(const std::filesystem::path& dir);

}  // namespace coca::io

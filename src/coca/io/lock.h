// coca/io/lock.h - one writer of a folder at a time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

namespace coca::io {

// Holds a lock (flock) on the file ".lock" in `dir` until it is destroyed or the process ends in any way. Makes the
// folder if it does not exist. Error kIo if somebody else has the lock, naming the process, or if the file cannot be
// made. The file remains; only who holds the lock may remove it.
class FolderLock {
 public:
  explicit FolderLock(const std::filesystem::path& dir);
  ~FolderLock();
  // The same error, without taking the lock, if somebody has it. Nothing is written.
  static void check_free(const std::filesystem::path& dir);
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_ = -1;
};

// Removes files and folders named ".tmp-..." that killed writers left in `dir`. Call it only while holding the lock.
void remove_leftovers(const std::filesystem::path& dir);

}  // namespace coca::io

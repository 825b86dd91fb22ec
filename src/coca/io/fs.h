// coca/io/fs.h - files and folders that are either wholly written or not there: temporary sibling, fsync,
// rename.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace coca::io {

std::string read_file(const std::filesystem::path& file);  // Error kIo with path and reason
// Written beside `file`, synced, renamed over it, folder synced: readers and crashes see the old or the new
// one.
void write_file_atomic(const std::filesystem::path& file, std::string_view content);
void fsync_path(const std::filesystem::path& file_or_dir);
void make_dirs(const std::filesystem::path& dir);
// Whether a file may name another by this and stay in their folder: no path, not empty, neither "." nor "..".
bool is_file_name(std::string_view name);

// A file that appears under its name at commit(), never half-written; for content too large to hold at once.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& final_path);
  ~AtomicFile();  // removes the temporary unless committed
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);                      // appends
  void write_at(uint64_t offset, const void* data, size_t bytes);  // overwrites; does not move the end
  uint64_t size() const { return size_; }
  void commit();

 private:
  std::filesystem::path final_, temporary_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

// The same for a folder: fill path(), then commit().
class AtomicDir {
 public:
  explicit AtomicDir(const std::filesystem::path& final_path);
  ~AtomicDir();  // removes the temporary folder unless committed
  AtomicDir(const AtomicDir&) = delete;
  AtomicDir& operator=(const AtomicDir&) = delete;

  const std::filesystem::path& path() const {
    return temporary_;
  }  // sibling of the final folder, named ".tmp-..."
  // Syncs every file and folder, swaps with an existing folder (and deletes that), syncs the parent.
  void commit();

 private:
  std::filesystem::path final_, temporary_;
  bool committed_ = false;
};

// Files, folders (recursive, files whose extension is in `extensions`, e.g. ".txt"; hidden names skipped) and
// glob(3) patterns, as one sorted list without duplicates. A pattern that matches nothing is an Error.
std::vector<std::filesystem::path> expand_inputs(const std::vector<std::string>& patterns,
                                                 const std::vector<std::string>& extensions);

}  // namespace coca::io

// coca/io/fs.h - files and folders that are either complete or absent (temporary file, fsync, rename), and
// queries about paths. Failures of the system are an Error kIo that names the path.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace coca::io {

// Links are followed. A missing path, or a link to one, is not an error; a path that cannot be examined is.
bool exists(const std::filesystem::path& path);
bool is_folder(const std::filesystem::path& path);
bool is_regular_file(const std::filesystem::path& path);
uint64_t file_bytes(const std::filesystem::path& file);
// The paths of what a folder holds, hidden ones too, sorted.
std::vector<std::filesystem::path> list_folder(const std::filesystem::path& dir);

// Where an output of this name is written: symbolic links are followed, even if the target does not exist yet.
struct OutputPlace {
  std::filesystem::path target;
  std::optional<int> descriptor;  // of this process, where the path is /dev/stdout, /dev/fd/N or /proc/self/fd/N
  // Not a regular file (a device, FIFO or terminal), or a descriptor: it is written into, never replaced.
  bool stream = false;
};
OutputPlace output_place(const std::filesystem::path& path);

std::string read_file(const std::filesystem::path& file);  // Error kIo with path and reason
// As AtomicFile writes it.
void write_file_atomic(const std::filesystem::path& file, std::string_view content);
void fsync_path(const std::filesystem::path& file_or_dir);
void make_dirs(const std::filesystem::path& dir);
// Whether a file may refer to another file of its folder by this name: no path, not empty, neither "." nor "..".
bool is_file_name(std::string_view name);

// A file that appears under its name at commit(), never half-written; for content too large to hold at once. It is
// written beside the place it goes to (see OutputPlace), synced and renamed over it; the folder is synced: readers and
// crashes see the old file or the new one. Into a stream everything is written at commit(); until then it waits in an
// unnamed temporary file. A FIFO that no process reads is waited for (30 seconds, or until a stop is asked for), then
// that is the error.
class AtomicFile {
 public:
  enum class Writers {
    kAny,  // the last of several has the name in the end
    kOne,  // Error kIo at once if another one of this kind is writing the file, unless both begin in the same instant
  };
  explicit AtomicFile(const std::filesystem::path& final_path, Writers writers = Writers::kAny);
  ~AtomicFile();  // removes the temporary unless committed
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);                      // appends
  void write_at(uint64_t offset, const void* data, size_t bytes);  // overwrites; does not move the end
  uint64_t size() const { return size_; }
  void commit();

 private:
  void commit_to_stream();

  std::filesystem::path name_;
  OutputPlace place_;
  std::filesystem::path temporary_;  // empty: has no name
  int fd_ = -1;
  uint64_t size_ = 0;
};

// A descriptor to write to a stream with, whose caller closes it. `name` is what errors call it.
int open_stream(const OutputPlace& place, const std::filesystem::path& name);

// The same for a folder: fill path(), then commit().
class AtomicDir {
 public:
  enum class Existing {
    kReplace,
    kRefuse,  // Error if the folder exists or another process is writing it, at once, and if it exists at commit(): of
              // several writers one succeeds
  };
  explicit AtomicDir(const std::filesystem::path& final_path, Existing existing = Existing::kReplace);
  ~AtomicDir();  // removes the temporary folder unless committed
  AtomicDir(const AtomicDir&) = delete;
  AtomicDir& operator=(const AtomicDir&) = delete;

  const std::filesystem::path& path() const { return temporary_; }  // sibling of the final folder, named ".tmp-..."
  // Syncs every file and folder, swaps with an existing folder (and deletes that), syncs the parent.
  void commit();

 private:
  void move_to_free_name();
  void swap_with_existing();

  std::filesystem::path final_, temporary_;
  Existing existing_;
  int fd_ = -1;  // of the temporary folder, locked
  bool committed_ = false;
};

// Files, folders (recursive, files whose extension is in `extensions`, e.g. ".txt"; hidden names skipped) and
// glob(3) patterns, as one sorted list without duplicates. A pattern that matches nothing is an Error.
std::vector<std::filesystem::path> expand_inputs(const std::vector<std::string>& patterns,
                                                 const std::vector<std::string>& extensions);

}  // namespace coca::io

// coca/io/fs.cc - see fs.h. POSIX calls, each checked; EINTR retried.
// SPDX-License-Identifier: Apache-2.0
#include "coca/io/fs.h"

#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <set>
#include <system_error>

#include "coca/base/error.h"

namespace coca::io {

namespace stdfs = std::filesystem;

namespace {

[[noreturn]] void fail_errno(const stdfs::path& file, const char* what, int error) {
  fail(ErrorKind::kIo, "{}: {}: {}", file.string(), what, std::strerror(error));
}

// Unique within this machine while the process lives; O_EXCL or mkdir catches leftovers of earlier processes.
stdfs::path temporary_sibling(const stdfs::path& final_path) {
  static std::atomic<uint64_t> counter{0};
  stdfs::path name = final_path.filename();
  return final_path.parent_path() /
         fmt::format(".tmp-{}-{}-{}", name.string(), ::getpid(), counter.fetch_add(1));
}

// "a/b/" means the same folder as "a/b"; a path without a last component names nothing that could be made.
stdfs::path without_trailing_slash(const stdfs::path& path) {
  stdfs::path clean = path.has_filename() ? path : path.parent_path();
  COCA_CHECK(clean.has_filename() && clean.filename() != "." && clean.filename() != "..",
             "\"{}\" does not name a file or folder to write", path.string());
  return clean;
}

stdfs::path parent_or_dot(const stdfs::path& path) {
  return path.has_parent_path() ? path.parent_path() : stdfs::path(".");
}

void write_all(int fd, const stdfs::path& file, const void* data, size_t bytes) {
  const char* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::write(fd, p, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(file, "cannot write", errno);
    p += n;
    bytes -= static_cast<size_t>(n);
  }
}

void fsync_tree(const stdfs::path& dir) {
  std::error_code error, ignored;  // what has no type is synced
  stdfs::recursive_directory_iterator entry(dir, error);
  for (; !error && entry != stdfs::recursive_directory_iterator(); entry.increment(error))
    if (!entry->is_symlink(ignored)) fsync_path(entry->path());
  if (error) fail_errno(dir, "cannot list the files of", error.value());
  fsync_path(dir);
}

}  // namespace

std::string read_file(const stdfs::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail_errno(file, "cannot open", errno);
  struct stat info {};
  std::string content;
  if (::fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) content.reserve(static_cast<size_t>(info.st_size));
  char block[65536];
  for (;;) {
    const ssize_t n = ::read(fd, block, sizeof block);
    if (n < 0 && errno == EINTR) continue;
    const int error = errno;
    if (n <= 0) ::close(fd);
    if (n < 0) fail_errno(file, "cannot read", error);
    if (n == 0) return content;
    content.append(block, static_cast<size_t>(n));
  }
}

void write_file_atomic(const stdfs::path& file, std::string_view content) {
  AtomicFile out(file);
  out.write(content.data(), content.size());
  out.commit();
}

void fsync_path(const stdfs::path& file_or_dir) {
  const int fd = ::open(file_or_dir.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail_errno(file_or_dir, "cannot open to sync", errno);
  const int status = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  // Some file systems cannot sync a folder and say EINVAL; there is nothing more to do then.
  if (status != 0 && error != EINVAL && error != EROFS) fail_errno(file_or_dir, "cannot sync", error);
}

void make_dirs(const stdfs::path& dir) {
  std::error_code error;
  stdfs::create_directories(dir, error);
  COCA_CHECK_AS(kIo, !error, "{}: cannot create folder: {}", dir.string(), error.message());
  COCA_CHECK_AS(kIo, stdfs::is_directory(dir, error), "{}: is not a folder", dir.string());
}

bool is_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && stdfs::path(name).filename() == name;
}

AtomicFile::AtomicFile(const stdfs::path& final_path)
    : final_(without_trailing_slash(final_path)), temporary_(temporary_sibling(final_)) {
  std::error_code ignored;
  COCA_CHECK_AS(kIo, !stdfs::is_directory(final_, ignored), "{}: is a folder where a file is to be written",
                final_.string());
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0 && errno == EEXIST) {  // left by a killed process that had our process id
    ::unlink(temporary_.c_str());
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  }
  if (fd_ < 0) fail_errno(final_, "cannot create", errno);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  write_all(fd_, final_, data, bytes);
  size_ += bytes;
}

void AtomicFile::write_at(uint64_t offset, const void* data, size_t bytes) {
  COCA_CHECK(offset <= size_ && bytes <= size_ - offset, "{}: write_at beyond the {} bytes written",
             final_.string(), size_);
  const char* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::pwrite(fd_, p, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(final_, "cannot write", errno);
    p += n;
    offset += static_cast<uint64_t>(n);
    bytes -= static_cast<size_t>(n);
  }
}

void AtomicFile::commit() {
  COCA_CHECK(fd_ >= 0, "{}: committed twice", final_.string());
  if (::fsync(fd_) != 0) fail_errno(final_, "cannot sync", errno);
  if (::rename(temporary_.c_str(), final_.c_str()) != 0)
    fail_errno(final_, "cannot rename into place", errno);
  ::close(fd_);
  fd_ = -1;
  fsync_path(parent_or_dot(final_));
}

AtomicDir::AtomicDir(const stdfs::path& final_path) : final_(without_trailing_slash(final_path)) {
  std::error_code error;
  COCA_CHECK_AS(kIo, !stdfs::exists(final_, error) || stdfs::is_directory(final_, error),
                "{}: exists and is not a folder", final_.string());
  if (final_.has_parent_path()) make_dirs(final_.parent_path());
  temporary_ = temporary_sibling(final_);
  stdfs::remove_all(temporary_, error);  // left by a killed process that had our process id
  if (::mkdir(temporary_.c_str(), 0777) != 0) fail_errno(final_, "cannot create folder", errno);
}

AtomicDir::~AtomicDir() {
  std::error_code ignored;
  if (!committed_) stdfs::remove_all(temporary_, ignored);
}

void AtomicDir::commit() {
  COCA_CHECK(!committed_, "{}: committed twice", final_.string());
  fsync_tree(temporary_);
  const stdfs::path parent = parent_or_dot(final_);
  if (!stdfs::exists(final_)) {
    if (::rename(temporary_.c_str(), final_.c_str()) != 0)
      fail_errno(final_, "cannot rename into place", errno);
    committed_ = true;
    fsync_path(parent);
    return;
  }
  // One system call swaps old and new, so that some complete folder has the name at every moment.
  stdfs::path old = temporary_;
  if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, final_.c_str(), RENAME_EXCHANGE) != 0) {
    // File systems without it: the old folder steps aside first and steps back if the second rename fails.
    old = temporary_sibling(final_);
    if (::rename(final_.c_str(), old.c_str()) != 0)
      fail_errno(final_, "cannot move the old folder aside", errno);
    if (::rename(temporary_.c_str(), final_.c_str()) != 0) {
      const int error = errno;
      ::rename(old.c_str(), final_.c_str());
      fail_errno(final_, "cannot rename into place", error);
    }
  }
  committed_ = true;
  fsync_path(parent);
  std::error_code ignored;  // the new folder is in place; what is left of the old one has a hidden name
  stdfs::remove_all(old, ignored);
}

namespace {

bool hidden(const stdfs::path& path) {
  return path.filename().string().starts_with('.');
}

void add_folder(const stdfs::path& dir, const std::vector<std::string>& extensions,
                std::vector<stdfs::path>& out) {
  std::error_code error;
  stdfs::recursive_directory_iterator it(dir, error), end;
  for (; !error && it != end; it.increment(error)) {
    if (hidden(it->path())) {
      it.disable_recursion_pending();
      continue;
    }
    std::error_code ignored;
    const bool wanted =
        std::find(extensions.begin(), extensions.end(), it->path().extension().string()) != extensions.end();
    if (wanted && it->is_regular_file(ignored)) out.push_back(it->path());
  }
  COCA_CHECK_AS(kIo, !error, "{}: cannot list folder: {}", dir.string(), error.message());
}

void add_path(const stdfs::path& path, const std::vector<std::string>& extensions,
              std::vector<stdfs::path>& out) {
  std::error_code ignored;
  if (stdfs::is_directory(path, ignored))
    add_folder(path, extensions, out);
  else
    out.push_back(path);
}

}  // namespace

std::vector<stdfs::path> expand_inputs(const std::vector<std::string>& patterns,
                                       const std::vector<std::string>& extensions) {
  std::string wanted;
  for (const std::string& extension : extensions) wanted += (wanted.empty() ? "" : ", ") + extension;
  std::vector<stdfs::path> found;
  for (const std::string& pattern : patterns) {
    const size_t before = found.size();
    std::error_code ignored;
    if (stdfs::exists(pattern, ignored)) {  // a name is taken literally before it is taken as a pattern
      add_path(pattern, extensions, found);
    } else {
      glob_t matches{};
      const int status = ::glob(pattern.c_str(), 0, nullptr, &matches);
      for (size_t i = 0; status == 0 && i < matches.gl_pathc; ++i)
        add_path(matches.gl_pathv[i], extensions, found);
      ::globfree(&matches);
    }
    COCA_CHECK_AS(kIo, found.size() > before,
                  "input \"{}\" matches nothing (folders are searched for {} files)", pattern, wanted);
  }
  std::sort(found.begin(), found.end());
  std::set<stdfs::path> seen;
  std::erase_if(found, [&](const stdfs::path& path) {
    std::error_code error;
    const stdfs::path real = stdfs::weakly_canonical(path, error);
    return !seen.insert(error ? path : real).second;
  });
  return found;
}

}  // namespace coca::io

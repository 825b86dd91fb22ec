// coca/io/fs.cc - see fs.h. POSIX calls, each checked; EINTR retried.
// SPDX-License-Identifier: Apache-2.0
#include "coca/io/fs.h"

#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <system_error>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/base/log.h"
#include "coca/base/stop.h"
#include "coca/io/system_error.h"

namespace coca::io {

namespace stdfs = std::filesystem;

namespace {

// The outermost folder on the way to a file that may not be entered; empty where all may.
stdfs::path closed_folder(const stdfs::path& file) {
  stdfs::path folder;
  for (const stdfs::path& part : file.parent_path()) {
    folder /= part;
    if (::faccessat(AT_FDCWD, folder.c_str(), X_OK, AT_EACCESS) != 0 && errno == EACCES) return folder;
  }
  return {};
}

// The first part of the way to a file that is there and no folder; empty where all are.
stdfs::path no_folder(const stdfs::path& file) {
  stdfs::path part;
  for (const stdfs::path& name : file.parent_path()) {
    part /= name;
    struct stat status {};
    if (::stat(part.c_str(), &status) == 0 && !S_ISDIR(status.st_mode)) return part;
  }
  return {};
}

}  // namespace

void fail_errno(const stdfs::path& file, const char* what, int error) {
  if (const stdfs::path closed = error == EACCES ? closed_folder(file) : stdfs::path(); !closed.empty())
    fail(ErrorKind::kIo, "{}: the folder cannot be entered: {} (needed for {})", closed.string(), std::strerror(error),
         file.filename().string());
  if (const stdfs::path part = error == ENOTDIR ? no_folder(file) : stdfs::path(); !part.empty())
    fail(ErrorKind::kIo, "{}: is not a folder (needed for {})", part.string(), file.filename().string());
  fail(ErrorKind::kIo, "{}: {}: {}", file.string(), what, std::strerror(error));
}

namespace {

// A free name beside the final one, as far as anyone can tell: other processes, on other machines too, may write there.
stdfs::path temporary_sibling(const stdfs::path& final_path) {
  uint64_t random = 0;
  while (::getrandom(&random, sizeof random, 0) < 0 && errno == EINTR) continue;
  const std::string name = final_path.filename().string().substr(0, 100);  // room for the rest within 255 bytes
  return final_path.parent_path() / fmt::format(".tmp-{}-{}-{:016x}", name, ::getpid(), random);
}

// Whether a file name is one that temporary_sibling() makes for this output; if so, with which process id.
std::optional<std::string> writer_of(const std::string& name, const stdfs::path& final_path) {
  const std::string begin = fmt::format(".tmp-{}-", final_path.filename().string().substr(0, 100));
  const size_t dash = name.rfind('-');
  if (!name.starts_with(begin) || dash < begin.size() || dash == std::string::npos || name.size() - dash != 17)
    return std::nullopt;
  const std::string id = name.substr(begin.size(), dash - begin.size());
  return id.find_first_not_of("0123456789") == std::string::npos ? std::optional(id) : std::nullopt;
}

// Error if another process is writing this output. Writers lock (flock) their temporary files and folders, and those
// that killed writers left are not locked.
void refuse_second_writer(const stdfs::path& final_path) {
  std::error_code error;
  const stdfs::path folder = final_path.has_parent_path() ? final_path.parent_path() : stdfs::path(".");
  for (stdfs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::optional<std::string> id = writer_of(it->path().filename().string(), final_path);
    if (!id) continue;
    const int fd = ::open(it->path().c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;  // just finished
    const bool locked = ::flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    ::close(fd);
    COCA_CHECK_AS(kIo, !locked, "{}: another process ({}) is writing it; wait for it, or choose another name",
                  final_path.string(), *id);
  }
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
    if (n < 0 && errno == EAGAIN) {  // a pipe that someone set to non-blocking
      pollfd ready{.fd = fd, .events = POLLOUT, .revents = 0};
      ::poll(&ready, 1, -1);
      continue;
    }
    if (n < 0) fail_errno(file, errno == EPIPE ? "cannot write, its reader has gone" : "cannot write", errno);
    p += n;
    bytes -= static_cast<size_t>(n);
  }
}

// Of what the path leads to; none where nothing is.
std::optional<struct stat> status_of(const stdfs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) return status;
  if (errno != ENOENT && errno != ENOTDIR) fail_errno(path, "cannot be looked at", errno);
  return std::nullopt;
}

// N of /dev/fd/N and /proc/self/fd/N.
std::optional<int> descriptor_of(const stdfs::path& path) {
  const std::string name = path.filename().string();
  int number = -1;
  const auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (bad != std::errc() || end != name.data() + name.size() || number < 0) return std::nullopt;
  std::error_code error, other;
  const stdfs::path folder = stdfs::canonical(path.parent_path(), error),
                    own = stdfs::canonical("/proc/self/fd", other);
  return !error && !other && folder == own ? std::optional(number) : std::nullopt;
}

int open_fifo(const stdfs::path& file, const stdfs::path& name) {
  constexpr int kSecondsToWait = 30, kPerSecond = 50;
  for (int i = 0; i < kSecondsToWait * kPerSecond; ++i) {
    const int fd = ::open(file.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0) {
      if (::fcntl(fd, F_SETFL, 0) == 0) return fd;
      const int error = errno;
      ::close(fd);
      fail_errno(name, "cannot open", error);
    }
    if (errno != ENXIO && errno != EINTR) fail_errno(name, "cannot open", errno);
    COCA_CHECK_AS(kInterrupted, !stop_requested(), "{}: stopped while no process read this FIFO", name.string());
    if (i == kPerSecond) log_warning("{}: waiting for a process that reads this FIFO", name.string());
    ::usleep(1'000'000 / kPerSecond);
  }
  fail(ErrorKind::kIo, "{}: is a FIFO that no process reads (waited {} seconds)", name.string(), kSecondsToWait);
}

// A file without a name, gone when it is closed.
int open_unnamed() {
  std::error_code error;
  const stdfs::path dir = stdfs::temp_directory_path(error);
  std::string name = ((error ? stdfs::path("/tmp") : dir) / "coca-XXXXXX").string();
  const int fd = ::mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) fail_errno(name, "cannot create a temporary file", errno);
  ::unlink(name.c_str());
  return fd;
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

bool exists(const stdfs::path& path) { return status_of(path).has_value(); }

bool is_folder(const stdfs::path& path) {
  const auto status = status_of(path);
  return status && S_ISDIR(status->st_mode);
}

bool is_regular_file(const stdfs::path& path) {
  const auto status = status_of(path);
  return status && S_ISREG(status->st_mode);
}

uint64_t file_bytes(const stdfs::path& file) {
  const auto status = status_of(file);
  COCA_CHECK_AS(kIo, status, "{}: does not exist", file.string());
  return static_cast<uint64_t>(status->st_size);
}

std::vector<stdfs::path> list_folder(const stdfs::path& dir) {
  std::vector<stdfs::path> paths;
  std::error_code error;
  stdfs::directory_iterator entry(dir, error);
  for (; !error && entry != stdfs::directory_iterator(); entry.increment(error)) paths.push_back(entry->path());
  if (error) fail_errno(dir, "cannot list the files of", error.value());
  std::sort(paths.begin(), paths.end());
  return paths;
}

OutputPlace output_place(const stdfs::path& path) {
  constexpr int kMostLinks = 40;  // as the kernel's limit
  OutputPlace place{.target = path, .descriptor = {}, .stream = false};
  for (int links = 0;; ++links) {
    place.descriptor = descriptor_of(place.target);
    if (place.descriptor) break;
    std::error_code error;
    const stdfs::path to = stdfs::read_symlink(place.target, error);
    if (error) break;  // no link, or nothing
    if (links == kMostLinks) fail_errno(path, "cannot follow its links", ELOOP);
    place.target = to.is_absolute() ? to : place.target.parent_path() / to;
  }
  const auto status = place.descriptor ? std::nullopt : status_of(place.target);
  place.stream = place.descriptor || (status && !S_ISREG(status->st_mode) && !S_ISDIR(status->st_mode));
  return place;
}

int open_stream(const OutputPlace& place, const stdfs::path& name) {
  if (place.descriptor) {  // its offset is shared, so that what was written to it before stays
    const int fd = ::fcntl(*place.descriptor, F_DUPFD_CLOEXEC, 3);
    if (fd < 0) fail_errno(name, "cannot open", errno);
    return fd;
  }
  const auto status = status_of(place.target);
  if (status && S_ISFIFO(status->st_mode)) return open_fifo(place.target, name);
  const int fd = ::open(place.target.c_str(), O_WRONLY | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) fail_errno(name, "cannot open", errno);
  return fd;
}

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
  if (error) fail_errno(dir, "cannot create folder", error.value());
  COCA_CHECK_AS(kIo, is_folder(dir), "{}: is not a folder", dir.string());
}

bool is_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && stdfs::path(name).filename() == name;
}

AtomicFile::AtomicFile(const stdfs::path& final_path, Writers writers)
    : name_(final_path), place_(output_place(final_path)) {
  if (place_.stream) {
    if (place_.descriptor && ::fcntl(*place_.descriptor, F_GETFD) < 0) fail_errno(name_, "cannot open", errno);
    fd_ = open_unnamed();
    return;
  }
  place_.target = without_trailing_slash(place_.target);
  COCA_CHECK_AS(kIo, !is_folder(place_.target), "{}: is a folder where a file is to be written", name_.string());
  if (writers == Writers::kOne) refuse_second_writer(place_.target);
  do {
    temporary_ = temporary_sibling(place_.target);
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (fd_ < 0 && errno == EEXIST);
  if (fd_ < 0) fail_errno(name_, "cannot create", errno);
  if (writers == Writers::kOne) ::flock(fd_, LOCK_EX | LOCK_NB);  // where it fails, nobody else is kept out
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  check_interrupt();
  write_all(fd_, name_, data, bytes);
  size_ += bytes;
}

void AtomicFile::write_at(uint64_t offset, const void* data, size_t bytes) {
  COCA_CHECK(offset <= size_ && bytes <= size_ - offset, "{}: write_at beyond the {} written", name_.string(),
             counted(size_, "byte"));
  const char* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::pwrite(fd_, p, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(name_, "cannot write", errno);
    p += n;
    offset += static_cast<uint64_t>(n);
    bytes -= static_cast<size_t>(n);
  }
}

void AtomicFile::commit() {
  COCA_CHECK(fd_ >= 0, "{}: committed twice", name_.string());
  if (place_.stream) return commit_to_stream();
  if (::fsync(fd_) != 0) fail_errno(name_, "cannot sync", errno);
  if (::rename(temporary_.c_str(), place_.target.c_str()) != 0) fail_errno(name_, "cannot rename into place", errno);
  ::close(fd_);
  fd_ = -1;
  fsync_path(parent_or_dot(place_.target));
}

void AtomicFile::commit_to_stream() {
  const int to = open_stream(place_, name_);
  try {
    char block[65536];
    for (uint64_t at = 0; at < size_;) {
      const ssize_t n = ::pread(fd_, block, sizeof block, static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail_errno(name_, "cannot read back what is to be written", n < 0 ? errno : EIO);
      write_all(to, name_, block, static_cast<size_t>(n));
      at += static_cast<uint64_t>(n);
    }
  } catch (...) {
    ::close(to);
    throw;
  }
  if (::close(to) != 0 && errno != EINTR) fail_errno(name_, "cannot write", errno);
  ::close(fd_);
  fd_ = -1;
}

AtomicDir::AtomicDir(const stdfs::path& final_path, Existing existing)
    : final_(without_trailing_slash(final_path)), existing_(existing) {
  final_ = without_trailing_slash(output_place(final_).target);
  const bool there = io::exists(final_);
  COCA_CHECK_AS(kIo, !there || existing == Existing::kReplace, "{} exists already; choose another folder",
                final_path.string());
  COCA_CHECK_AS(kIo, !there || is_folder(final_), "{}: exists and is not a folder", final_.string());
  if (final_.has_parent_path()) make_dirs(final_.parent_path());
  if (existing == Existing::kRefuse) refuse_second_writer(final_);
  int status = 0;
  do {
    temporary_ = temporary_sibling(final_);
    status = ::mkdir(temporary_.c_str(), 0777);
  } while (status != 0 && errno == EEXIST);
  if (status != 0) fail_errno(final_, "cannot create folder", errno);
  if (existing == Existing::kReplace) return;
  fd_ = ::open(temporary_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd_ >= 0) ::flock(fd_, LOCK_EX | LOCK_NB);  // where it fails, commit() decides who is the first
}

AtomicDir::~AtomicDir() {
  if (fd_ >= 0) ::close(fd_);
  std::error_code ignored;
  if (!committed_) stdfs::remove_all(temporary_, ignored);
}

void AtomicDir::commit() {
  COCA_CHECK(!committed_, "{}: committed twice", final_.string());
  fsync_tree(temporary_);
  if (existing_ == Existing::kReplace && io::exists(final_))
    swap_with_existing();
  else
    move_to_free_name();
}

void AtomicDir::move_to_free_name() {
  const char* from = temporary_.c_str();
  const char* to = final_.c_str();
  int status = 0;
  if (existing_ == Existing::kReplace) {
    status = ::rename(from, to);
  } else {
    status = ::renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE);
    if (status != 0 && (errno == EINVAL || errno == ENOSYS)) {
      // File systems without it: an empty folder takes the name, which only one process can make, and is replaced.
      status = ::mkdir(to, 0777);
      if (status == 0) status = ::rename(from, to);
    }
    COCA_CHECK_AS(kIo, status == 0 || errno != EEXIST,
                  "{}: another process has created it in the meantime; choose another folder", final_.string());
  }
  if (status != 0) fail_errno(final_, "cannot rename into place", errno);
  committed_ = true;
  fsync_path(parent_or_dot(final_));
}

void AtomicDir::swap_with_existing() {
  // One system call swaps old and new, so that some complete folder has the name at every moment.
  stdfs::path old = temporary_;
  if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, final_.c_str(), RENAME_EXCHANGE) != 0) {
    // File systems without it: the old folder steps aside first and steps back if the second rename fails.
    old = temporary_sibling(final_);
    if (::rename(final_.c_str(), old.c_str()) != 0) fail_errno(final_, "cannot move the old folder aside", errno);
    if (::rename(temporary_.c_str(), final_.c_str()) != 0) {
      const int error = errno;
      ::rename(old.c_str(), final_.c_str());
      fail_errno(final_, "cannot rename into place", error);
    }
  }
  committed_ = true;
  fsync_path(parent_or_dot(final_));
  std::error_code ignored;  // the new folder is in place; what is left of the old one has a hidden name
  stdfs::remove_all(old, ignored);
}

namespace {

bool hidden(const stdfs::path& path) { return path.filename().string().starts_with('.'); }

void add_folder(const stdfs::path& dir, const std::vector<std::string>& extensions, std::vector<stdfs::path>& out) {
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

void add_path(const stdfs::path& path, const std::vector<std::string>& extensions, std::vector<stdfs::path>& out) {
  if (is_folder(path))
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
    if (io::exists(pattern)) {  // a name is taken literally before it is taken as a pattern
      add_path(pattern, extensions, found);
    } else {
      glob_t matches{};
      const int status = ::glob(pattern.c_str(), 0, nullptr, &matches);
      for (size_t i = 0; status == 0 && i < matches.gl_pathc; ++i) add_path(matches.gl_pathv[i], extensions, found);
      ::globfree(&matches);
    }
    COCA_CHECK_AS(kIo, found.size() > before, "input \"{}\" matches nothing (folders are searched for {} files)",
                  pattern, wanted);
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

// SPDX-License-Identifier: Apache-2.0
#include "support/harness.h"

#include <fcntl.h>
#include <sanitizer/allocator_interface.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "coca/base/error.h"

namespace coca::fuzz {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kSeparator = "\n%%%%\n";

// The memory used by the running parser. Hooks must not allocate.
struct Meter {
  std::atomic<bool> armed{false};
  std::atomic<int64_t> live{0};
  int64_t limit = 0;
  size_t input = 0;
};
Meter meter;

void on_malloc(const volatile void*, size_t bytes) {
  if (!meter.armed.load(std::memory_order_relaxed)) return;
  const int64_t live = meter.live += static_cast<int64_t>(bytes);
  if (live <= meter.limit) return;
  meter.armed = false;
  std::fprintf(stderr,
               "FINDING: %lld bytes are alive (the last allocation has %zu); an input of %zu bytes may cost %lld\n",
               static_cast<long long>(live), bytes, meter.input, static_cast<long long>(meter.limit));
  __builtin_trap();
}

void on_free(const volatile void* p) {
  if (!meter.armed.load(std::memory_order_relaxed) || p == nullptr) return;
  meter.live -= static_cast<int64_t>(__sanitizer_get_allocated_size(p));
}

struct Armed {
  Armed(size_t input, Budget budget) {
    static const bool installed = __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) > 0;
    if (!installed) finding("the allocator takes no hooks");
    meter.input = input;
    meter.limit = static_cast<int64_t>(budget.base + budget.per_byte * input);
    meter.live = 0;
    meter.armed = true;
  }
  ~Armed() { meter.armed = false; }
};

std::string folder_root;  // empty: opened files are not checked

}  // namespace

void finding(const std::string& what) {
  meter.armed = false;
  std::fprintf(stderr, "FINDING: %s\n", what.c_str());
  __builtin_trap();
}

void attempt(const std::function<void()>& parse) {
  try {
    parse();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kInternal) finding(std::string("an internal error: ") + error.what());
    require(*error.what() != '\0', "an Error without a message");
  }
}

void check(std::string_view input, Budget budget, const std::function<void(std::string_view)>& parse) {
  const Armed armed(input.size(), budget);
  try {
    attempt([&] { parse(input); });
  } catch (const std::exception& error) {
    finding(std::string("an exception that is no coca::Error: ") + error.what());
  }
}

MemoryFile::MemoryFile(std::string_view content) : fd_(::memfd_create("input", MFD_CLOEXEC)) {
  if (fd_ < 0 || ::write(fd_, content.data(), content.size()) != static_cast<ssize_t>(content.size()))
    finding(std::string("cannot make a file in memory: ") + std::strerror(errno));
}
MemoryFile::~MemoryFile() { ::close(fd_); }
fs::path MemoryFile::path() const { return "/proc/self/fd/" + std::to_string(fd_); }

Folder& Folder::instance() {
  static Folder folder;
  return folder;
}

Folder::Folder() {
  const char* const given = std::getenv("COCA_FUZZ_TMP");
  std::string name = std::string(given ? given : "/dev/shm") + "/coca-fuzz-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) finding("cannot make a folder " + name);
  path_ = fs::path(name) / "model";
  fs::create_directory(path_);
  // A file with one tensor "t" of two bytes.
  const std::string header = R"({"t":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}  )";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size());
  file += header + "ok";
  const fs::path outside = fs::path(name) / "outside.safetensors";
  const int fd = ::open(outside.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || ::write(fd, file.data(), file.size()) != static_cast<ssize_t>(file.size()))
    finding("cannot write into " + name);
  ::close(fd);
  folder_root = path_.string();
  static std::string root;
  root = name;
  std::atexit([] {
    std::error_code ignored;
    fs::remove_all(root, ignored);
  });
}

fs::path Folder::write(std::string_view name, std::string_view content) {
  const fs::path file = path_ / name;
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0 || ::write(fd, content.data(), content.size()) != static_cast<ssize_t>(content.size()))
    finding("cannot write " + file.string());
  ::close(fd);
  written_.push_back(file);
  return file;
}

void Folder::clear() {
  for (const fs::path& file : written_) ::unlink(file.c_str());
  written_.clear();
}

std::vector<std::string_view> parts_of(std::string_view input) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t at = input.find(kSeparator);
    parts.push_back(input.substr(0, at));
    if (at == std::string_view::npos) return parts;
    input.remove_prefix(at + kSeparator.size());
  }
}

}  // namespace coca::fuzz

// The linker redirects every open() of the library to this function.
extern "C" int __real_open(const char* path, int flags, ...);
extern "C" int __wrap_open(const char* path, int flags, ...) {
  std::va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  const std::string& root = coca::fuzz::folder_root;
  const std::string_view name(path);
  const bool inside = name.starts_with(root) && name.find("/../") == std::string_view::npos && !name.ends_with("/..");
  if (!root.empty() && !inside && !name.starts_with("/proc/self/fd/"))
    coca::fuzz::finding("opens " + std::string(name) + ", which is not in the folder of the model");
  return __real_open(path, flags, mode);
}

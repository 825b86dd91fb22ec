// fuzz/support/harness.h - shared by the fuzz targets: the rules for parsing hostile files, files in memory, folders on
// tmpfs, and inputs that contain several files. README.md explains how targets are written and run.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace coca::fuzz {

// Heap bytes that may be allocated at the same time for an input of n bytes: base + per_byte * n. Mapped files do not
// count.
struct Budget {
  size_t base = size_t{1} << 20;
  size_t per_byte = 64;
};

// Runs the parser. It may throw an Error for a bad file. An Error of kind kInternal, any other exception, or more
// memory than the budget is a finding: the process ends, and libFuzzer keeps the input.
void check(std::string_view input, Budget budget, const std::function<void(std::string_view)>& parse);

// Runs one of several parsers of an input, each of which may refuse it.
void attempt(const std::function<void()>& parse);

// Ends the process with a message, because the library broke a guarantee.
[[noreturn]] void finding(const std::string& what);
inline void require(bool holds, const char* what) {
  if (!holds) finding(what);
}

// An unnamed file in memory, opened through path(). Faster than a file system.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view content);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::filesystem::path path() const;

 private:
  int fd_;
};

// An empty folder on tmpfs, shared by the whole process and emptied by clear(). Next to it is a valid weight file,
// "outside.safetensors", which no file inside may refer to. While a Folder exists, opening anything else than its files
// and MemoryFiles is a finding.
class Folder {
 public:
  static Folder& instance();
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(std::string_view name, std::string_view content);  // returns the full path
  void clear();

 private:
  Folder();
  std::filesystem::path path_;
  std::vector<std::filesystem::path> written_;
};

// Splits an input into several files at lines of "%%%%".
std::vector<std::string_view> parts_of(std::string_view input);
// The part with that index, or "".
inline std::string_view part(const std::vector<std::string_view>& parts, size_t i) {
  return i < parts.size() ? parts[i] : std::string_view{};
}

}  // namespace coca::fuzz

// Usage: COCA_FUZZ_TARGET(Budget) { ... uses std::string_view input ... }
#define COCA_FUZZ_TARGET(...)                                                                                     \
  static void fuzz_one(std::string_view input);                                                                   \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {                                       \
    ::coca::fuzz::check({reinterpret_cast<const char*>(data), size}, ::coca::fuzz::Budget __VA_ARGS__, fuzz_one); \
    return 0;                                                                                                     \
  }                                                                                                               \
  static void fuzz_one(std::string_view input)

// fuzz/support/harness.h - what every fuzz target shares: the rule of what a parser may do with a hostile file, files
// in memory, folders on tmpfs, several files in one input. README.md says how targets are made and run.
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

// Heap bytes alive at once that an input of n bytes may cost: base + per_byte * n. Mapped files do not count.
struct Budget {
  size_t base = size_t{1} << 20;
  size_t per_byte = 64;
};

// Runs the parser. An Error is its proper answer to a bad file; kInternal, any other exception, and more memory than
// the budget are findings: the process ends, and libFuzzer keeps the input.
void check(std::string_view input, Budget budget, const std::function<void(std::string_view)>& parse);

// Runs one of several parsers of an input, of which each may refuse it.
void attempt(const std::function<void()>& parse);

// Ends the process with a message: a promise of the library is broken.
[[noreturn]] void finding(const std::string& what);
inline void require(bool holds, const char* what) {
  if (!holds) finding(what);
}

// A file without a name, to be opened by path(): quicker than one of a file system.
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

// An empty folder on tmpfs, the same for the whole process and emptied by clear(). Beside it lies a good weight file,
// "outside.safetensors", which no file inside may name. While one exists, opening anything that is neither in it nor a
// MemoryFile is a finding.
class Folder {
 public:
  static Folder& instance();
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(std::string_view name, std::string_view content);  // its full name
  void clear();

 private:
  Folder();
  std::filesystem::path path_;
  std::vector<std::filesystem::path> written_;
};

// The files of an input that stands for several: separated by lines of "%%%%".
std::vector<std::string_view> parts_of(std::string_view input);
// The part of that number, or nothing.
inline std::string_view part(const std::vector<std::string_view>& parts, size_t i) {
  return i < parts.size() ? parts[i] : std::string_view{};
}

}  // namespace coca::fuzz

// COCA_FUZZ_TARGET(Budget) { ... uses std::string_view input ... }
#define COCA_FUZZ_TARGET(...)                                                                                     \
  static void fuzz_one(std::string_view input);                                                                   \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {                                       \
    ::coca::fuzz::check({reinterpret_cast<const char*>(data), size}, ::coca::fuzz::Budget __VA_ARGS__, fuzz_one); \
    return 0;                                                                                                     \
  }                                                                                                               \
  static void fuzz_one(std::string_view input)

// tests/support/paths.h - data that is not part of the project: golden models and the book corpus. Tests that need
// them skip with a message where they are missing.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace coca::test {

inline std::filesystem::path from_environment(const char* variable, const char* beside) {
  if (const char* dir = std::getenv(variable)) return dir;
  return std::filesystem::path(COCA_SOURCE_DIR) / ".." / "shared" / beside;
}
inline std::filesystem::path golden_dir() { return from_environment("COCA_GOLDEN_DIR", "golden"); }
inline std::filesystem::path books_dir() { return from_environment("COCA_BOOKS_DIR", "data/books"); }

// An empty folder of this test, removed at the end.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "coca-test-XXXXXX").string();
    if (!mkdtemp(name.data())) std::abort();
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }
  operator const std::filesystem::path&() const { return path_; }  // NOLINT: implicit on purpose

 private:
  std::filesystem::path path_;
};

}  // namespace coca::test

#define COCA_SKIP_WITHOUT(dir)                                                                  \
  if (!std::filesystem::exists(dir)) GTEST_SKIP() << (dir).string() << " is not there; set "    \
                                                     "COCA_GOLDEN_DIR or COCA_BOOKS_DIR to run this"

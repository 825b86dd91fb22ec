// tests/support/paths.h - data outside the project: golden models and the book corpus. Tests that need missing data are
// skipped with a message.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <filesystem>

#include "support/temp_dir.h"

namespace coca::test {

inline std::filesystem::path from_environment(const char* variable, const char* beside) {
  if (const char* dir = std::getenv(variable)) return dir;
  return std::filesystem::path(COCA_SOURCE_DIR) / ".." / "shared" / beside;
}
inline std::filesystem::path golden_dir() { return from_environment("COCA_GOLDEN_DIR", "golden"); }
inline std::filesystem::path books_dir() { return from_environment("COCA_BOOKS_DIR", "data/books"); }

}  // namespace coca::test

#define COCA_SKIP_WITHOUT(dir)          \
  if (!std::filesystem::exists(dir))    \
  GTEST_SKIP() << (dir).string()        \
               << " is not there; set " \
                  "COCA_GOLDEN_DIR or COCA_BOOKS_DIR to run this"

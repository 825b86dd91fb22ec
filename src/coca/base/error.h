// coca/base/error.h - the one exception type of the library, and the checks that throw it.
// The library never prints, aborts or exits; bad input becomes an Error naming the thing, its value and what was
// expected.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace coca {

enum class ErrorKind {
  kInvalidArgument,  // a flag, option, shape or value given by the caller
  kBadFile,          // invalid content of a file
  kIo,               // the operating system refused: missing, unreadable, full, locked
  kNumeric,          // non-finite values where finite ones are needed
  kInterrupted,      // the user asked to stop; state was saved where that was promised
  kInternal,         // a bug inside coca
};

const char* error_kind_name(ErrorKind kind);

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

// Throws Error{kind, formatted message}.
template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> text, Args&&... args) {
  throw Error(kind, fmt::format(text, std::forward<Args>(args)...));
}

namespace detail {
[[noreturn]] void debug_check_failed(const char* condition, const char* file, int line);
}

}  // namespace coca

// Check at a public interface, always on: COCA_CHECK(H % G == 0, "[attention] H={} must be a multiple of G={}", H, G);
#define COCA_CHECK(condition, ...)                                    \
  do {                                                                \
    if (!(condition)) [[unlikely]]                                    \
      ::coca::fail(::coca::ErrorKind::kInvalidArgument, __VA_ARGS__); \
  } while (0)

// The same with an explicit kind: COCA_CHECK_AS(kBadFile, ok, "{}: ...", path);
#define COCA_CHECK_AS(kind, condition, ...)               \
  do {                                                    \
    if (!(condition)) [[unlikely]]                        \
      ::coca::fail(::coca::ErrorKind::kind, __VA_ARGS__); \
  } while (0)

// Internal check for bugs in the library; compiled out with NDEBUG.
#ifdef NDEBUG
#define COCA_DCHECK(condition) ((void)0)
#else
#define COCA_DCHECK(condition) \
  ((condition) ? (void)0 : ::coca::detail::debug_check_failed(#condition, __FILE__, __LINE__))
#endif

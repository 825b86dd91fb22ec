// SPDX-License-Identifier: Apache-2.0
#include "coca/base/error.h"

namespace coca {

const char* error_kind_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kInvalidArgument: return "invalid argument";
    case ErrorKind::kBadFile: return "bad file";
    case ErrorKind::kIo: return "i/o error";
    case ErrorKind::kNumeric: return "numeric error";
    case ErrorKind::kInterrupted: return "interrupted";
    case ErrorKind::kInternal: return "internal error";
  }
  return "error";
}

namespace detail {
void debug_check_failed(const char* condition, const char* file, int line) {
  fail(ErrorKind::kInternal, "{}:{}: internal check failed: {}", file, line, condition);
}
}  // namespace detail

}  // namespace coca

// coca/base/clock.h - elapsed time on the monotonic clock (wall-clock jumps do not matter).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

namespace coca {

class Stopwatch {
 public:
  Stopwatch() : start_(std::chrono::steady_clock::now()) {}
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  void restart() { start_ = std::chrono::steady_clock::now(); }

 private:
  std::chrono::steady_clock::time_point start_;
};

}  // namespace coca

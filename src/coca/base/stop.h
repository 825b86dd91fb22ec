// coca/base/stop.h - a request to stop. Long loops poll stop_requested() and save before they end.
// tools/ sets it on SIGINT and SIGTERM. Your own program must not let signal handlers run on threads that compute,
// because they corrupt oneDNN's products (docs/decisions/007).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "coca/base/error.h"

namespace coca {

namespace detail {
inline std::atomic<bool> stop_flag{false};
inline thread_local int interruptible_depth = 0;
}  // namespace detail

inline bool stop_requested() { return detail::stop_flag.load(std::memory_order_relaxed); }
inline void request_stop() { detail::stop_flag.store(true, std::memory_order_relaxed); }
inline void clear_stop() { detail::stop_flag.store(false, std::memory_order_relaxed); }

// While the calling thread has one, a request to stop ends its work in the middle: parallel_for() leaves out the tasks
// that have not begun and throws Error kInterrupted, and so does check_interrupt(). What was being computed is lost, so
// it is for work whose results are then thrown away: a step of training, a window of an evaluation, a file that is only
// put into place when complete. Work that several ranks share by messages must not have one.
class Interruptible {
 public:
  Interruptible() { ++detail::interruptible_depth; }
  ~Interruptible() { --detail::interruptible_depth; }
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;

  static bool here() { return detail::interruptible_depth > 0; }
};

inline void check_interrupt() {
  if (Interruptible::here() && stop_requested()) fail(ErrorKind::kInterrupted, "stopped");
}

// Runs the work under an Interruptible. False if it was interrupted.
template <typename Work>
bool run_until_stop(const Work& work) {
  try {
    const Interruptible scope;
    work();
    return true;
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kInterrupted && stop_requested()) return false;
    throw;
  }
}

// The same, but throws Error kInterrupted with this message.
template <typename Work>
void run_interruptible(const std::function<std::string()>& message, const Work& work) {
  const bool whole = run_until_stop([&] {
    check_interrupt();
    work();
  });
  if (!whole) throw Error(ErrorKind::kInterrupted, message());
}

}  // namespace coca

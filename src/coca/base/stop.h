// coca/base/stop.h - a polite stop request. Long loops poll stop_requested() and save before they leave;
// tools/ sets it from SIGINT and SIGTERM. A program of your own must not let signal handlers run on threads that compute:
// oneDNN's products do not survive it (docs/decisions/007).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>

namespace coca {

namespace detail {
inline std::atomic<bool> stop_flag{false};
}

inline bool stop_requested() { return detail::stop_flag.load(std::memory_order_relaxed); }
inline void request_stop() { detail::stop_flag.store(true, std::memory_order_relaxed); }
inline void clear_stop() { detail::stop_flag.store(false, std::memory_order_relaxed); }

}  // namespace coca

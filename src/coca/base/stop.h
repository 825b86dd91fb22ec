// coca/base/stop.h - a request to stop. Long loops poll stop_requested() and save before they end.
// tools/ sets it on SIGINT and SIGTERM. Your own program must not let signal handlers run on threads that compute,
// because they corrupt oneDNN's products (docs/decisions/007).
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

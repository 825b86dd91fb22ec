// SPDX-License-Identifier: Apache-2.0
#include "coca/base/log.h"

#include <mutex>

namespace coca {

namespace {
std::mutex& sink_mutex() {
  static std::mutex mutex;
  return mutex;
}
LogSink& sink() {
  static LogSink instance;
  return instance;
}
}  // namespace

void set_log_sink(LogSink new_sink) {
  const std::lock_guard lock(sink_mutex());
  sink() = std::move(new_sink);
}

void log_message(LogLevel level, std::string_view text) {
  const std::lock_guard lock(sink_mutex());
  if (sink()) sink()(level, text);
}

}  // namespace coca

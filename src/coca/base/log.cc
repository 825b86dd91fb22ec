// SPDX-License-Identifier: Apache-2.0
#include "coca/base/log.h"

#include <mutex>
#include <set>

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
std::set<std::string, std::less<>>& said() {
  static std::set<std::string, std::less<>> texts;
  return texts;
}
}  // namespace

void set_log_sink(LogSink new_sink) {
  const std::lock_guard lock(sink_mutex());
  sink() = std::move(new_sink);
  said().clear();
}

void log_message(LogLevel level, std::string_view text) {
  const std::lock_guard lock(sink_mutex());
  if (sink()) sink()(level, text);
}

void log_once(LogLevel level, std::string_view text) {
  const std::lock_guard lock(sink_mutex());
  if (sink() && said().emplace(text).second) sink()(level, text);
}

}  // namespace coca

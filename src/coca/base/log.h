// coca/base/log.h - the library's log messages: discarded until a sink is installed. Only tools/ prints.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace coca {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

using LogSink = std::function<void(LogLevel, std::string_view)>;

void set_log_sink(LogSink sink);  // an empty sink discards messages
void log_message(LogLevel level, std::string_view text);
// As log_message(), but each text reaches a sink only once, for notes that recur each time a file is read.
void log_once(LogLevel level, std::string_view text);

template <typename... Args>
void log_info(fmt::format_string<Args...> text, Args&&... args) {
  log_message(LogLevel::kInfo, fmt::format(text, std::forward<Args>(args)...));
}
template <typename... Args>
void log_warning(fmt::format_string<Args...> text, Args&&... args) {
  log_message(LogLevel::kWarning, fmt::format(text, std::forward<Args>(args)...));
}
template <typename... Args>
void log_debug(fmt::format_string<Args...> text, Args&&... args) {
  log_message(LogLevel::kDebug, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace coca

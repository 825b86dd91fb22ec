// SPDX-License-Identifier: Apache-2.0
#include "signals.h"

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>

#include "cli.h"

#include "coca/base/stop.h"

namespace coca::tools {

namespace {

// From here on, only calls that are safe in a signal handler.
void say(const char* text, size_t bytes) {
  while (bytes > 0) {
    const ssize_t n = ::write(STDERR_FILENO, text, bytes);
    if (n <= 0) return;
    text += n;
    bytes -= static_cast<size_t>(n);
  }
}
void say(const char* text) { say(text, std::strlen(text)); }

uintptr_t hexadecimal(const char*& at) {
  uintptr_t value = 0;
  for (;; ++at) {
    const char c = *at;
    if (c >= '0' && c <= '9')
      value = value * 16 + static_cast<uintptr_t>(c - '0');
    else if (c >= 'a' && c <= 'f')
      value = value * 16 + static_cast<uintptr_t>(c - 'a' + 10);
    else
      return value;
  }
}

// Prints the file mapped at `address`, using the lines "from-to ... /path" of /proc/self/maps.
void say_mapped_file(uintptr_t address) {
  static char line[8192];
  const int fd = ::open("/proc/self/maps", O_RDONLY);
  if (fd < 0) return;
  size_t length = 0;
  for (char c = 0; ::read(fd, &c, 1) == 1;) {
    if (c != '\n') {
      if (length + 1 < sizeof line) line[length++] = c;
      continue;
    }
    line[length] = 0;
    const char* at = line;
    const uintptr_t from = hexadecimal(at);
    const uintptr_t to = hexadecimal(++at);
    const char* path = std::strchr(at, '/');
    if (from <= address && address < to && path) {
      say(path);
      return say(": ");
    }
    length = 0;
  }
}

// Reading a mapped file raises SIGBUS if the file has been truncated or its disk fails.
void on_bus_error(int, siginfo_t* info, void*) {
  say("coca: ");
  say_mapped_file(reinterpret_cast<uintptr_t>(info->si_addr));
  say("cannot be read any more: it was cut short while in use, or its disk failed\n");
  ::_exit(kExitFailed);
}

// `timeout` and service managers signal a process and then its group: what comes this soon is the same request.
constexpr std::chrono::seconds kSameRequest{1};

// Other threads may hold any lock here, so the message is written without stdio.
[[noreturn]] void end_at_once(int signal) {
  say(::isatty(STDERR_FILENO) ? "\ncoca: " : "coca: ");  // below a line of progress
  say("ended at once by a second signal (");
  say(signal == SIGINT ? "SIGINT" : signal == SIGTERM ? "SIGTERM" : "SIGHUP");
  say("); work that was not saved yet is lost\n");
  std::_Exit(128 + signal);
}

std::mutex ending;  // held while the program ends, so that no EndsAtFirstSignal is destroyed meanwhile
bool ends_at_once = false;

void set_ends_at_once(bool value) {
  const std::lock_guard lock(ending);
  ends_at_once = value;
}

}  // namespace

EndsAtFirstSignal::EndsAtFirstSignal() { set_ends_at_once(true); }
EndsAtFirstSignal::~EndsAtFirstSignal() { set_ends_at_once(false); }

void watch_signals() {
  struct sigaction bus {};
  bus.sa_sigaction = on_bus_error;
  bus.sa_flags = SA_SIGINFO;
  sigemptyset(&bus.sa_mask);
  ::sigaction(SIGBUS, &bus, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // so that writing beyond the limit of ulimit -f fails and is reported
  sigset_t watched;
  sigemptyset(&watched);
  sigaddset(&watched, SIGINT);
  sigaddset(&watched, SIGTERM);
  struct sigaction hangup {};
  ::sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler != SIG_IGN) sigaddset(&watched, SIGHUP);  // stays ignored under nohup
  pthread_sigmask(SIG_BLOCK, &watched, nullptr);
  std::thread([watched] {
    using Clock = std::chrono::steady_clock;
    Clock::time_point first;
    for (int signal = 0; sigwait(&watched, &signal) == 0;) {
      const std::lock_guard lock(ending);
      if (ends_at_once) {
        say(::isatty(STDERR_FILENO) ? "\ncoca: " : "coca: ");
        say("stopped; nothing was written\n");
        std::_Exit(kExitInterrupted);
      }
      if (!stop_requested()) {
        first = Clock::now();
        request_stop();
      } else if (Clock::now() - first >= kSameRequest) {
        end_at_once(signal);
      }
    }
  }).detach();
}

}  // namespace coca::tools

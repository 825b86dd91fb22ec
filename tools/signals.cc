// SPDX-License-Identifier: Apache-2.0
#include "signals.h"

#include <csignal>
#include <cstdlib>
#include <thread>

#include "coca/base/stop.h"

namespace coca::tools {

void watch_signals() {
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t watched;
  sigemptyset(&watched);
  sigaddset(&watched, SIGINT);
  sigaddset(&watched, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &watched, nullptr);
  std::thread([watched] {
    for (int signal = 0; sigwait(&watched, &signal) == 0;) {
      if (stop_requested()) std::_Exit(128 + signal);
      request_stop();
    }
  }).detach();
}

}  // namespace coca::tools

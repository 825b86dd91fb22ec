// Handling of Ctrl-C, SIGTERM and SIGHUP (a closed terminal). The first signal asks long work to save and stop.
// Further signals within a second count as the same request; a later one ends the program at once and says so.
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace coca::tools {

// Blocks these signals in all threads started from here on and waits for them on a separate thread, so that no handler
// runs on a thread that computes (docs/decisions/007). SIGBUS ends the program with one line naming the mapped file
// that was truncated. Call first in main.
void watch_signals();

// While one lives, the first signal ends the program at once, with exit code kExitInterrupted and one line that says
// that nothing was written. For work that cannot be asked to stop, and that must not write meanwhile.
class EndsAtFirstSignal {
 public:
  EndsAtFirstSignal();
  ~EndsAtFirstSignal();
  EndsAtFirstSignal(const EndsAtFirstSignal&) = delete;
  EndsAtFirstSignal& operator=(const EndsAtFirstSignal&) = delete;
};

}  // namespace coca::tools

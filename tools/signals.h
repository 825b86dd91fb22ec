// Ctrl-C, SIGTERM and SIGHUP (a terminal that is closed): the first asks politely (long work saves and leaves), the
// second ends the program at once.
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace coca::tools {

// Blocks these signals in every thread started from here on and waits for them on a thread of its own: no handler
// that returns ever runs on a thread that computes (docs/decisions/007). SIGBUS ends the program with one line that
// names the mapped file which was cut short. Call it first in main.
void watch_signals();

}  // namespace coca::tools

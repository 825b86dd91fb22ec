// coca/dist/thread_group.h - ranks as threads of one process, for tests: they need no mpirun, and sanitizers check
// every byte that is sent from rank to rank.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "coca/dist/communicator.h"

namespace coca::dist {

// Runs body(rank's communicator) on `size` threads and waits for all. Rethrows the first error; ranks
// that wait for a rank that has ended get an Error kIo ("rank 1 has left").
void run_ranks(int size, const std::function<void(Communicator&)>& body);

}  // namespace coca::dist

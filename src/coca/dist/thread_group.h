// coca/dist/thread_group.h - ranks as threads of one process: what tests use where mpirun would be in the way, and
// sanitizers see every byte that goes from rank to rank.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "coca/dist/communicator.h"

namespace coca::dist {

// Runs body(rank's communicator) on `size` threads and waits for all. Rethrows the first error; ranks
// that wait for one which has ended get an Error kIo ("rank 1 has left").
void run_ranks(int size, const std::function<void(Communicator&)>& body);

}  // namespace coca::dist

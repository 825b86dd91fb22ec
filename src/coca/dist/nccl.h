// coca/dist/nccl.h - ranks with a GPU each, whose messages are in device memory: exchange() as one group of ncclSend and
// ncclRecv. Built with COCA_NCCL=ON, for the CUDA backend to come. It compiles; it has not run: no GPU was at hand.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/dist/communicator.h"

namespace coca::dist {

// All ranks of `hosts` together, each with its present CUDA device; what NCCL needs to meet goes over `hosts`, which must
// outlive the result. Its collectives (broadcast, together, ...) want host memory: those stay with `hosts`.
std::unique_ptr<Communicator> nccl_ranks(Communicator& hosts);

}  // namespace coca::dist

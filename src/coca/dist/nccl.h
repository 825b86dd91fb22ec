// coca/dist/nccl.h - ranks with one GPU each, whose messages are in device memory: exchange() is one group of ncclSend
// and ncclRecv. Built with COCA_NCCL=ON, for a future CUDA backend. It compiles but has not run, for lack of a GPU.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/dist/communicator.h"

namespace coca::dist {

// All ranks of `hosts` call it together, each with its current CUDA device. NCCL's ids are exchanged over `hosts`,
// which must outlive the result. Collectives (broadcast, together, ...) need host memory, so call them on `hosts`.
std::unique_ptr<Communicator> nccl_ranks(Communicator& hosts);

}  // namespace coca::dist

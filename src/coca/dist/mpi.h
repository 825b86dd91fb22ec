// coca/dist/mpi.h - ranks as the processes of an MPI job (mpirun -n 4 coca train ...). Built if MPI is found
// (COCA_MPI); without it, the functions exist and report that MPI is missing.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/dist/communicator.h"

namespace coca::dist {

bool mpi_built();
// Whether this process was started as one of several by an MPI launcher.
bool mpi_launched();
// "Open MPI 4.1.4", or what is missing.
std::string mpi_version();

// The job, from construction to destruction; one per process. Error kInvalidArgument if MPI was not built in.
class MpiJob {
 public:
  MpiJob();
  ~MpiJob();  // all ranks together
  MpiJob(const MpiJob&) = delete;
  MpiJob& operator=(const MpiJob&) = delete;

  Communicator& ranks() { return *ranks_; }
  // Ends the processes of all ranks, including this one.
  void end_all(int exit_code);

 private:
  std::unique_ptr<Communicator> ranks_;
};

}  // namespace coca::dist

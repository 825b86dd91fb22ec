// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>

#include "coca/dist/mpi.h"

namespace coca::dist {

// Open MPI's mpirun, and launchers that use PMIx or PMI, such as Slurm's srun and MPICH's.
bool mpi_launched() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"})
    if (std::getenv(name)) return true;
  return false;
}

}  // namespace coca::dist

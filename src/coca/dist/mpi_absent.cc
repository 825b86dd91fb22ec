// SPDX-License-Identifier: Apache-2.0
#include "coca/dist/mpi.h"

namespace coca::dist {

bool mpi_built() { return false; }
std::string mpi_version() { return "not built in"; }
MpiJob::MpiJob() {
  fail(ErrorKind::kInvalidArgument,
       "started as one of several MPI processes, but this program was built without MPI (install libopenmpi-dev, build "
       "with COCA_MPI=ON)");
}
MpiJob::~MpiJob() = default;
void MpiJob::end_all(int) {}

}  // namespace coca::dist

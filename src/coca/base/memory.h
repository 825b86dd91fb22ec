// coca/base/memory.h - resident memory of this process, for the figures in reports.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace coca {

int64_t peak_resident_bytes();  // high-water mark (VmHWM); 0 where the system does not say
void reset_peak_resident();      // the mark falls to what is resident now; where the system cannot, nothing happens

}  // namespace coca

// coca/base/memory.h - resident memory of this process, for the figures in reports.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace coca {

int64_t peak_resident_bytes();  // high-water mark (VmHWM); 0 if the system does not report it
void reset_peak_resident();     // resets the mark to what is resident now, if the system can

}  // namespace coca

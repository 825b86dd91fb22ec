// SPDX-License-Identifier: Apache-2.0
#include "coca/base/memory.h"

#include <cstdio>
#include <cstring>

namespace coca {

int64_t peak_resident_bytes() {
  std::FILE* file = std::fopen("/proc/self/status", "r");
  if (!file) return 0;
  char line[256];
  long long kib = 0;
  while (std::fgets(line, sizeof line, file))
    if (std::sscanf(line, "VmHWM: %lld", &kib) == 1) break;
  std::fclose(file);
  return static_cast<int64_t>(kib) * 1024;
}

void reset_peak_resident() {
  if (std::FILE* file = std::fopen("/proc/self/clear_refs", "w")) {
    std::fputs("5", file);
    std::fclose(file);
  }
}

}  // namespace coca

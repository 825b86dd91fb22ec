// SPDX-License-Identifier: Apache-2.0
#include "coca/base/sizes.h"

#include <sys/resource.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <cstdio>
#include <limits>

#include "coca/base/error.h"

namespace coca {

namespace {

std::string factors_text(std::initializer_list<Factor> factors) {
  std::string text;
  for (const Factor& f : factors) text += fmt::format("{}{} {}", text.empty() ? "" : " x ", f.name, f.value);
  return text;
}

// The limit of a control group, as in containers.
int64_t group_limit() {
  int64_t most = std::numeric_limits<int64_t>::max();
  for (const char* name : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"})
    if (std::FILE* file = std::fopen(name, "r")) {
      long long limit = 0;  // "max": none
      if (std::fscanf(file, "%lld", &limit) == 1 && limit > 0) most = std::min<int64_t>(most, limit);
      std::fclose(file);
    }
  return most;
}

}  // namespace

void check_count(std::string_view name, int64_t value, int64_t most) {
  COCA_CHECK(value >= -most && value <= most, "{} is {}; expected at most {}", name, value, most);
}

int64_t checked_product(std::string_view what, std::initializer_list<Factor> factors) {
  int64_t product = 1;
  for (const Factor& f : factors) {
    COCA_CHECK(f.value >= 0, "{}: {} is {}; expected 0 or more", what, f.name, f.value);
    if (f.value == 0) return 0;
  }
  for (const Factor& f : factors)
    COCA_CHECK(!__builtin_mul_overflow(product, f.value, &product), "{}: {} is more than 2^63 - 1", what,
               factors_text(factors));
  return product;
}

int64_t memory_limit() {
  struct sysinfo info {};
  double most = static_cast<double>(group_limit());
  if (sysinfo(&info) == 0)
    most = std::min(most, (static_cast<double>(info.totalram) + static_cast<double>(info.totalswap)) * info.mem_unit);
  rlimit space{};
  if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY)
    most = std::min(most, static_cast<double>(space.rlim_cur));
  return most < 0x1p62 ? static_cast<int64_t>(most) : int64_t{1} << 62;
}

std::string memory_text(double bytes) {
  constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  size_t unit = 0;
  for (bytes /= 1024; bytes >= 1024 && unit + 1 < std::size(kUnits); ++unit) bytes /= 1024;
  return fmt::format("{:.1f} {}", bytes, kUnits[unit]);
}

void check_memory(std::string_view what, std::initializer_list<Factor> factors, std::string_view advice) {
  double bytes = 1;
  for (const Factor& f : factors) bytes *= static_cast<double>(f.value);
  const int64_t most = memory_limit();
  COCA_CHECK(bytes <= static_cast<double>(most), "{}: {} need at least {}; there are {} of memory: {}", what,
             factors_text(factors), memory_text(bytes), memory_text(static_cast<double>(most)), advice);
}

}  // namespace coca

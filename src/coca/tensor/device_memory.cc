// SPDX-License-Identifier: Apache-2.0
#include "coca/tensor/device_memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "coca/base/sizes.h"

namespace coca {

namespace {

// nullptr if the system has no memory left.
std::byte* allocate_on_host(size_t bytes) {
  // Large blocks use huge pages if the system has them (decoding reads the cache up to a third faster).
  constexpr size_t kHugePage = size_t{2} << 20;
  // Beyond this limit the system may grant memory and later kill the process.
  static const auto most = static_cast<size_t>(memory_limit());
  if (bytes > most) return nullptr;
  const size_t rounded = (bytes + 63) / 64 * 64, alignment = rounded >= kHugePage ? kHugePage : 64;
  void* p = nullptr;
  if (posix_memalign(&p, alignment, rounded ? rounded : 64) != 0) return nullptr;
  if (alignment == kHugePage) madvise(p, rounded / kHugePage * kHugePage, MADV_HUGEPAGE);  // advice: may be refused
  std::memset(p, 0, rounded);
  return static_cast<std::byte*>(p);
}

std::string mib(size_t bytes) { return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / 1048576.0); }

}  // namespace

void BufferDeleter::operator()(std::byte* p) const {
  if (!memory)
    std::free(p);
  else if (pinned)
    memory->release_pinned(p);
  else
    memory->release(p);
}

Buffer allocate(DeviceMemory* memory, size_t bytes, std::string_view what) {
  std::byte* p = memory ? memory->allocate(bytes) : allocate_on_host(bytes);
  if (!p && memory) {
    const auto [free, total] = memory->room();
    fail(ErrorKind::kIo, "out of memory on {} ({}): no {} for {}; {} of {} are free", memory->device().text(),
         memory->name(), mib(bytes), what, mib(free), mib(total));
  }
  COCA_CHECK_AS(kIo, p, "out of memory: no {} for {}", mib(bytes), what);
  return Buffer(p, {.memory = memory});
}

Buffer allocate_pinned(DeviceMemory* memory, size_t bytes, std::string_view what) {
  if (!memory) return allocate(nullptr, bytes, what);
  std::byte* p = memory->allocate_pinned(bytes);
  COCA_CHECK_AS(kIo, p, "out of memory: no {} on the host, pinned for {}, for {}", mib(bytes), memory->device().text(),
                what);
  return Buffer(p, {.memory = memory, .pinned = true});
}

}  // namespace coca

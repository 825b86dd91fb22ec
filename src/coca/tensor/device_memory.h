// coca/tensor/device_memory.h - memory on the host or a device: who gives it, and what owns it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "coca/base/device.h"

namespace coca {

// One device's memory and its one stream: copies, and the kernels that ops start, run in the order in which they were asked
// for. Must outlive every buffer, tensor and context on it. Made by ops::device_memory; every call throws Error (kIo) where
// the device fails. For one thread at a time.
class DeviceMemory {
 public:
  struct Room {
    size_t free, total;  // bytes
  };

  virtual ~DeviceMemory() = default;
  virtual Device device() const = 0;
  virtual std::string name() const = 0;  // "NVIDIA H200"
  virtual Room room() const = 0;

  // Zero-filled and 256-byte aligned; nullptr when there is not as much left.
  virtual std::byte* allocate(size_t bytes) = 0;
  virtual void release(std::byte*) noexcept = 0;
  // Likewise on the host, where copies from and to it need not stop the caller; 64-byte aligned.
  virtual std::byte* allocate_pinned(size_t bytes) = 0;
  virtual void release_pinned(std::byte*) noexcept = 0;

  // Queued; the host's side must stay as it is until synchronize().
  virtual void upload(void* device, const void* host, size_t bytes) = 0;
  virtual void download(void* host, const void* device, size_t bytes) = 0;
  virtual void copy(void* to, const void* from, size_t bytes) = 0;  // both on the device
  virtual void zero(void* device, size_t bytes) = 0;
  virtual void synchronize() = 0;  // returns when all that was queued is done
};

struct BufferDeleter {
  DeviceMemory* memory = nullptr;  // null: the host's own
  bool pinned = false;
  void operator()(std::byte* p) const;
};
// Zero-filled, 64-byte aligned on the host, 256 on a device.
using Buffer = std::unique_ptr<std::byte, BufferDeleter>;

// `memory` null: the host's. Throws Error (kIo) naming the device, `what`, and the sizes when there is not as much left.
Buffer allocate(DeviceMemory* memory, size_t bytes, std::string_view what);
inline Buffer allocate(size_t bytes, std::string_view what) { return allocate(nullptr, bytes, what); }
// On the host, for copies to and from `memory`; its own when `memory` is null.
Buffer allocate_pinned(DeviceMemory* memory, size_t bytes, std::string_view what);

}  // namespace coca

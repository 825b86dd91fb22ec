// coca/tensor/device_memory.h - memory on the host or a device: the interface that provides it, and buffers that own
// it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "coca/base/device.h"

namespace coca {

// One device's memory and its one stream: copies, and the kernels that ops start, run in the order in which they were
// requested. Must outlive every buffer, tensor and context on it. Made by ops::device_memory. Every call throws Error
// (kIo) if the device fails. For one thread at a time.
class DeviceMemory {
 public:
  struct Room {
    size_t free, total;  // bytes
  };

  virtual ~DeviceMemory() = default;
  virtual Device device() const = 0;
  virtual std::string name() const = 0;  // "NVIDIA H200"
  virtual Room room() const = 0;

  // Zero-filled and 256-byte aligned; nullptr if there is not enough memory.
  virtual std::byte* allocate(size_t bytes) = 0;
  virtual void release(std::byte*) noexcept = 0;
  // The same on the host, 64-byte aligned; copies from and to this memory do not block the caller.
  virtual std::byte* allocate_pinned(size_t bytes) = 0;
  virtual void release_pinned(std::byte*) noexcept = 0;

  // Queued; the host's memory must not change until synchronize().
  virtual void upload(void* device, const void* host, size_t bytes) = 0;
  // The same through pinned memory of its own: the host's memory may change as soon as this returns, which it does
  // without waiting unless many megabytes are queued.
  virtual void upload_copy(void* device, const void* host, size_t bytes) = 0;
  virtual void download(void* host, const void* device, size_t bytes) = 0;
  virtual void copy(void* to, const void* from, size_t bytes) = 0;  // both on the device
  virtual void zero(void* device, size_t bytes) = 0;
  virtual void synchronize() = 0;  // returns when everything queued is done
};

struct BufferDeleter {
  DeviceMemory* memory = nullptr;  // null: the host's own
  bool pinned = false;
  void operator()(std::byte* p) const;
};
// Zero-filled, 64-byte aligned on the host, 256 on a device.
using Buffer = std::unique_ptr<std::byte, BufferDeleter>;

// `memory` null: the host's. If there is not enough memory, throws Error (kIo) naming the device, `what` and the sizes.
Buffer allocate(DeviceMemory* memory, size_t bytes, std::string_view what);
inline Buffer allocate(size_t bytes, std::string_view what) { return allocate(nullptr, bytes, what); }
// On the host, for copies to and from `memory`; ordinary memory if `memory` is null.
Buffer allocate_pinned(DeviceMemory* memory, size_t bytes, std::string_view what);

}  // namespace coca

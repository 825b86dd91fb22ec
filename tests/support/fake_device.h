// tests/support/fake_device.h - a device simulated in separate blocks of host memory. Its memory is limited, queued
// work runs at synchronize(), and addresses outside its blocks are refused.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "coca/tensor/device_memory.h"

namespace coca::test {

class FakeDevice : public DeviceMemory {
 public:
  explicit FakeDevice(size_t bytes, int index = 0) : bytes_(bytes), index_(index) {}
  ~FakeDevice() override {
    for (const auto& [p, size] : blocks_) std::free(p);
  }

  Device device() const override { return {DeviceKind::kCuda, index_}; }
  std::string name() const override { return "a fake"; }
  Room room() const override { return {bytes_ - used_, bytes_}; }
  size_t used() const { return used_; }
  size_t pinned() const { return pinned_; }  // number of blocks
  void set_size(size_t bytes) { bytes_ = bytes; }
  // From here on synchronize() fails, as with a card that has fallen off the bus; again false: it is back.
  void set_lost(bool lost) { lost_ = lost; }
  // So far: calls of synchronize(), and blocks allocated.
  size_t waits() const { return waits_; }
  size_t allocations() const { return allocations_; }

  std::byte* allocate(size_t bytes) override {
    if (bytes > bytes_ - used_) return nullptr;
    ++allocations_;
    auto* p = static_cast<std::byte*>(std::aligned_alloc(256, (bytes / 256 + 1) * 256));
    std::memset(p, 0x5a, bytes);
    blocks_[p] = bytes;
    used_ += bytes;
    zero(p, bytes);
    return p;
  }
  void release(std::byte* p) noexcept override {
    run();
    used_ -= blocks_.at(p);
    blocks_.erase(p);
    std::free(p);
  }
  std::byte* allocate_pinned(size_t bytes) override {
    ++pinned_;
    return static_cast<std::byte*>(std::calloc(1, bytes + 1));
  }
  void release_pinned(std::byte* p) noexcept override {
    --pinned_;
    run();
    std::free(p);
  }

  void upload(void* device, const void* host, size_t bytes) override {
    queue(device, host, bytes, owns(device, bytes) && !owns(host, bytes));
  }
  void upload_copy(void* device, const void* host, size_t bytes) override {
    COCA_CHECK(owns(device, bytes) && !owns(host, bytes), "fake device: a copy between other memories than it says");
    const auto* first = static_cast<const std::byte*>(host);
    queue_.push_back([device, kept = std::vector<std::byte>(first, first + bytes)] {
      std::memcpy(device, kept.data(), kept.size());
    });
  }
  void download(void* host, const void* device, size_t bytes) override {
    queue(host, device, bytes, !owns(host, bytes) && owns(device, bytes));
  }
  void copy(void* to, const void* from, size_t bytes) override {
    queue(to, from, bytes, owns(to, bytes) && owns(from, bytes));
  }
  void zero(void* device, size_t bytes) override {
    COCA_CHECK(owns(device, bytes), "fake device: zero() of memory that it does not own");
    queue_.push_back([=] { std::memset(device, 0, bytes); });
  }
  void synchronize() override {
    ++waits_;
    COCA_CHECK_AS(kIo, !lost_, "[cuda] cudaStreamSynchronize: the device is lost");
    run();
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }
  // Adds work that runs at synchronize(), after everything queued before. An exception ends the queue.
  void enqueue(std::function<void()> what) { queue_.push_back(std::move(what)); }

  bool owns(const void* p, size_t bytes) const {
    const auto* at = static_cast<const std::byte*>(p);
    for (const auto& [start, size] : blocks_)
      if (at >= start && at + bytes <= start + size) return true;
    return false;
  }

 private:
  void queue(void* to, const void* from, size_t bytes, bool right_ends) {
    COCA_CHECK(right_ends, "fake device: a copy whose source or destination is in the wrong memory");
    queue_.push_back([=] { std::memcpy(to, from, bytes); });
  }
  void run() {
    try {
      for (const auto& what : queue_) what();
    } catch (...) {
      error_ = std::current_exception();
    }
    queue_.clear();
  }

  size_t bytes_, used_ = 0, pinned_ = 0, waits_ = 0, allocations_ = 0;
  int index_;
  bool lost_ = false;
  std::map<std::byte*, size_t> blocks_;
  std::vector<std::function<void()>> queue_;
  std::exception_ptr error_;
};

}  // namespace coca::test

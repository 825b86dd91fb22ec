// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cuda/memory.h"

#include <cstring>

#include "coca/kernels/cuda/check.h"

namespace coca::cuda {

namespace {

class CudaMemory : public DeviceMemory {
 public:
  explicit CudaMemory(const Gpu& gpu) : gpu_(gpu) {
    use();
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  }
  ~CudaMemory() override { cudaStreamDestroy(stream_); }
  CudaMemory(const CudaMemory&) = delete;
  CudaMemory& operator=(const CudaMemory&) = delete;

  Device device() const override { return gpu_.device; }
  std::string name() const override { return gpu_.name; }
  Room room() const override {
    use();
    Room room{};
    check(cudaMemGetInfo(&room.free, &room.total), "cudaMemGetInfo");
    return room;
  }

  std::byte* allocate(size_t bytes) override {
    use();
    void* p = nullptr;
    if (none_left(cudaMalloc(&p, some(bytes)), "cudaMalloc")) return nullptr;
    const cudaError_t zeroed = cudaMemsetAsync(p, 0, some(bytes), stream_);
    if (zeroed != cudaSuccess) cudaFree(p);
    check(zeroed, "cudaMemsetAsync");
    return static_cast<std::byte*>(p);
  }
  void release(std::byte* p) noexcept override {  // waits for queued work
    cudaSetDevice(gpu_.device.index);
    cudaFree(p);
  }
  std::byte* allocate_pinned(size_t bytes) override {
    use();
    void* p = nullptr;
    if (none_left(cudaHostAlloc(&p, some(bytes), cudaHostAllocDefault), "cudaHostAlloc")) return nullptr;
    std::memset(p, 0, some(bytes));
    return static_cast<std::byte*>(p);
  }
  void release_pinned(std::byte* p) noexcept override {
    cudaSetDevice(gpu_.device.index);
    cudaStreamSynchronize(stream_);  // a copy may still be queued
    cudaFreeHost(p);
  }

  void upload(void* device, const void* host, size_t bytes) override {
    queue(device, host, bytes, cudaMemcpyHostToDevice);
  }
  // CUDA copies from pageable memory before it returns.
  void upload_copy(void* device, const void* host, size_t bytes) override {
    queue(device, host, bytes, cudaMemcpyHostToDevice);
  }
  void download(void* host, const void* device, size_t bytes) override {
    queue(host, device, bytes, cudaMemcpyDeviceToHost);
  }
  void copy(void* to, const void* from, size_t bytes) override { queue(to, from, bytes, cudaMemcpyDeviceToDevice); }
  void zero(void* device, size_t bytes) override {
    use();
    check(cudaMemsetAsync(device, 0, bytes, stream_), "cudaMemsetAsync");
  }
  void synchronize() override {
    use();
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }
  cudaStream_t use_stream() const {
    use();
    return stream_;
  }

 private:
  static size_t some(size_t bytes) { return bytes ? bytes : 1; }  // an allocation of 0 bytes would return no address
  static bool none_left(cudaError_t code, const char* call) {
    if (code == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // clears the error, which the next call would report again
      return true;
    }
    check(code, call);
    return false;
  }
  void use() const { check(cudaSetDevice(gpu_.device.index), "cudaSetDevice"); }  // for the calling thread
  void queue(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    use();
    check(cudaMemcpyAsync(to, from, bytes, kind, stream_), "cudaMemcpyAsync");
  }

  Gpu gpu_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace

std::unique_ptr<DeviceMemory> open_memory(const Gpu& gpu) { return std::make_unique<CudaMemory>(gpu); }

cudaStream_t use_stream(DeviceMemory& memory) { return dynamic_cast<CudaMemory&>(memory).use_stream(); }

}  // namespace coca::cuda

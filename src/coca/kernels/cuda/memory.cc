// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cuda/memory.h"

#include <algorithm>
#include <cstring>

#include "coca/kernels/cuda/check.h"

namespace coca::cuda {

namespace {

// Pinned memory through which small copies pass, so that neither the caller nor the device waits for the other. It has
// two halves, which are filled in turn: the host waits only if the device is a half behind.
struct Staging {
  static constexpr size_t kHalf = size_t{8} << 20;  // bytes
  std::byte* memory = nullptr;                      // both halves; null before the first use
  cudaEvent_t filled[2] = {};                       // when the copies from a half are done
  int half = 0;                                     // the one that is being filled
  size_t used = 0;                                  // bytes of it
};

class CudaMemory : public DeviceMemory {
 public:
  explicit CudaMemory(const Gpu& gpu) : gpu_(gpu) {
    use();
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  }
  ~CudaMemory() override {
    for (cudaEvent_t event : staging_.filled)
      if (event) cudaEventDestroy(event);
    if (staging_.memory) release_pinned(staging_.memory);
    cudaStreamDestroy(stream_);
  }
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
  void upload_copy(void* device, const void* host, size_t bytes) override {
    use();
    prepare_staging();
    for (size_t at = 0; at < bytes;) {
      if (staging_.used == Staging::kHalf) other_half();
      const size_t part = std::min(bytes - at, Staging::kHalf - staging_.used);
      std::byte* staged = staging_.memory + static_cast<size_t>(staging_.half) * Staging::kHalf + staging_.used;
      std::memcpy(staged, static_cast<const std::byte*>(host) + at, part);
      queue(static_cast<std::byte*>(device) + at, staged, part, cudaMemcpyHostToDevice);
      staging_.used = std::min(Staging::kHalf, staging_.used + (part + 63) / 64 * 64);
      at += part;
    }
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
  void prepare_staging() {
    if (staging_.memory) return;
    for (cudaEvent_t& event : staging_.filled)
      if (!event) check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    staging_.memory = allocate_pinned(2 * Staging::kHalf);
    COCA_CHECK_AS(kIo, staging_.memory, "out of memory: no {} MiB on the host, pinned for {}, for copies",
                  (2 * Staging::kHalf) >> 20, gpu_.device.text());
  }
  void other_half() {
    check(cudaEventRecord(staging_.filled[staging_.half], stream_), "cudaEventRecord");
    staging_.half = 1 - staging_.half;
    staging_.used = 0;
    check(cudaEventSynchronize(staging_.filled[staging_.half]), "cudaEventSynchronize");
  }
  void use() const { check(cudaSetDevice(gpu_.device.index), "cudaSetDevice"); }  // for the calling thread
  void queue(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    use();
    check(cudaMemcpyAsync(to, from, bytes, kind, stream_), "cudaMemcpyAsync");
  }

  Gpu gpu_;
  cudaStream_t stream_ = nullptr;
  Staging staging_;
};

}  // namespace

std::unique_ptr<DeviceMemory> open_memory(const Gpu& gpu) { return std::make_unique<CudaMemory>(gpu); }

cudaStream_t use_stream(DeviceMemory& memory) { return dynamic_cast<CudaMemory&>(memory).use_stream(); }

}  // namespace coca::cuda

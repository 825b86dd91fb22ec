// SPDX-License-Identifier: Apache-2.0
#include "cuda_runtime/fake_cudart.h"

#include <cstdlib>
#include <cstring>
#include <functional>

namespace coca::test {

namespace {

struct Block {
  size_t bytes;
  int gpu;
};
std::map<char*, Block> blocks;
std::map<void*, size_t> pinned;
std::vector<std::function<void()>> queued;
int present = 0;                 // the GPU of this thread
cudaError_t last = cudaSuccess;  // returned by cudaGetLastError

cudaError_t failed(cudaError_t code) { return last = code; }
// The result that the test has set for this call.
cudaError_t wanted(const char* call) {
  const auto& failing = fake_cuda().failing;
  const auto it = failing.find(call);
  return it == failing.end() ? cudaSuccess : failed(it->second);
}
void run() {
  for (const auto& what : queued) what();
  queued.clear();
}

}  // namespace

FakeCuda& fake_cuda() {
  static FakeCuda fake;
  return fake;
}

bool on_fake_gpu(const void* p, size_t bytes) {
  const auto* at = static_cast<const char*>(p);
  for (const auto& [start, block] : blocks)
    if (at >= start && at + bytes <= start + block.bytes) return true;
  return false;
}

}  // namespace coca::test

using namespace coca::test;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  const FakeCuda& fake = fake_cuda();
  *count = fake.start == cudaSuccess ? static_cast<int>(fake.gpus.size()) : 0;
  return fake.start == cudaSuccess ? cudaSuccess : failed(fake.start);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int gpu) {
  const FakeGpu& g = fake_cuda().gpus.at(static_cast<size_t>(gpu));
  *properties = {};
  g.name.copy(properties->name, sizeof properties->name - 1);
  properties->major = g.major;
  properties->minor = g.minor;
  properties->totalGlobalMem = g.bytes;
  return wanted("cudaGetDeviceProperties");
}
cudaError_t cudaDriverGetVersion(int* version) { return *version = fake_cuda().driver, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaSetDevice(int gpu) {
  if (gpu < 0 || static_cast<size_t>(gpu) >= fake_cuda().gpus.size()) return failed(cudaErrorInvalidDevice);
  present = gpu;
  return wanted("cudaSetDevice");
}
cudaError_t cudaGetDevice(int* gpu) { return *gpu = present, wanted("cudaGetDevice"); }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int gpu) {
  const FakeGpu& g = fake_cuda().gpus.at(static_cast<size_t>(gpu));
  *value = which == cudaDevAttrComputeCapabilityMajor   ? g.major
           : which == cudaDevAttrComputeCapabilityMinor ? g.minor
                                                        : 0;
  return wanted("cudaDeviceGetAttribute");
}
#if CUDART_VERSION >= 13000
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t, cudaStreamCaptureStatus* status, unsigned long long*, cudaGraph_t*,
                                     const cudaGraphNode_t**, const cudaGraphEdgeData**, size_t*) {
#else
cudaError_t cudaStreamGetCaptureInfo_v2(cudaStream_t, cudaStreamCaptureStatus* status, unsigned long long*,
                                        cudaGraph_t*, const cudaGraphNode_t**, size_t*) {
#endif
  return *status = cudaStreamCaptureStatusNone, cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = reinterpret_cast<cudaStream_t>(&queued);
  return wanted("cudaStreamCreateWithFlags");
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  run();
  return wanted("cudaStreamSynchronize");
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  if (const cudaError_t code = wanted("cudaEventCreateWithFlags"); code != cudaSuccess) return code;
  *event = reinterpret_cast<cudaEvent_t>(new bool(false));
  ++fake_cuda().events;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete reinterpret_cast<bool*>(event);
  --fake_cuda().events;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (!stream) return failed(cudaErrorInvalidValue);
  *reinterpret_cast<bool*>(event) = true;
  return wanted("cudaEventRecord");
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (*reinterpret_cast<bool*>(event)) {
    ++fake_cuda().waits;
    run();
  }
  return wanted("cudaEventSynchronize");
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = fake_cuda().gpus.at(static_cast<size_t>(present)).bytes;
  *free = *total;
  for (const auto& [start, block] : blocks)
    if (block.gpu == present) *free -= block.bytes;
  return wanted("cudaMemGetInfo");
}
cudaError_t cudaMalloc(void** p, size_t bytes) {
  size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  if (bytes > free) return failed(cudaErrorMemoryAllocation);
  if (const cudaError_t code = wanted("cudaMalloc"); code != cudaSuccess) return code;
  *p = std::aligned_alloc(256, (bytes / 256 + 1) * 256);
  std::memset(*p, 0x5a, bytes);
  blocks[static_cast<char*>(*p)] = {bytes, present};
  ++fake_cuda().device_blocks;
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  run();
  if (blocks.erase(static_cast<char*>(p)) == 0) return failed(cudaErrorInvalidValue);
  --fake_cuda().device_blocks;
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) {
  if (const cudaError_t code = wanted("cudaHostAlloc"); code != cudaSuccess) return code;
  *p = std::aligned_alloc(4096, (bytes / 4096 + 1) * 4096);
  std::memset(*p, 0x5a, bytes);
  pinned[*p] = bytes;
  ++fake_cuda().pinned_blocks;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* p) {
  if (pinned.erase(p) == 0) return failed(cudaErrorInvalidValue);
  --fake_cuda().pinned_blocks;
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const bool to_gpu = kind != cudaMemcpyDeviceToHost, from_gpu = kind != cudaMemcpyHostToDevice;
  if (!stream || on_fake_gpu(to, bytes) != to_gpu || on_fake_gpu(from, bytes) != from_gpu)
    return failed(cudaErrorInvalidValue);
  if (const cudaError_t code = wanted("cudaMemcpyAsync"); code != cudaSuccess) return code;
  queued.emplace_back([=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  if (!stream || !on_fake_gpu(p, bytes)) return failed(cudaErrorInvalidValue);
  if (const cudaError_t code = wanted("cudaMemsetAsync"); code != cudaSuccess) return code;
  queued.emplace_back([=] { std::memset(p, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  const cudaError_t code = last;
  last = cudaSuccess;
  return code;
}
const char* cudaGetErrorString(cudaError_t code) {
  return code == cudaErrorIllegalAddress ? "an illegal memory access was encountered" : "some error";
}
const char* cudaGetErrorName(cudaError_t code) {
  return code == cudaErrorIllegalAddress ? "cudaErrorIllegalAddress" : "cudaErrorSome";
}

}  // extern "C"

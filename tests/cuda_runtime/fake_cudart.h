// tests/cuda_runtime/fake_cudart.h - a fake CUDA runtime. It has as many GPUs as the test sets; their memory is
// separate blocks of host memory; copies are made when the stream is synchronized; calls fail on request.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <map>
#include <string>
#include <vector>

namespace coca::test {

struct FakeGpu {
  std::string name = "Fake A100";
  int major = 8, minor = 0;
  size_t bytes = size_t{1} << 20;
};

struct FakeCuda {
  std::vector<FakeGpu> gpus;
  cudaError_t start = cudaSuccess;             // result of cudaGetDeviceCount
  int driver = 13000;                          // the newest CUDA version that the driver supports; 0: no driver
  std::map<std::string, cudaError_t> failing;  // by name of the call
  // What is there now.
  size_t device_blocks = 0, pinned_blocks = 0, events = 0;
  size_t waits = 0;  // for events that have been recorded
};
FakeCuda& fake_cuda();
bool on_fake_gpu(const void* p, size_t bytes);  // whether the bytes lie within one block

}  // namespace coca::test

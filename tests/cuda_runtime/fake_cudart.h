// tests/cuda_runtime/fake_cudart.h - in the CUDA runtime's place: as many GPUs as the test says, whose memory is the
// host's but apart, whose copies happen when the stream is waited for, and which fails where it is told to.
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
  cudaError_t start = cudaSuccess;             // what cudaGetDeviceCount says
  int driver = 13000;                          // the newest CUDA that the driver knows; 0: there is no driver
  std::map<std::string, cudaError_t> failing;  // by call
  // What is there now.
  size_t device_blocks = 0, pinned_blocks = 0;
};
FakeCuda& fake_cuda();
bool on_fake_gpu(const void* p, size_t bytes);  // within one block

}  // namespace coca::test

// coca/kernels/cuda/device.h - the GPUs that CUDA finds, and their memory. Builds without CUDA have the same functions
// from kernels/cuda_stub, which find none.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "coca/tensor/device_memory.h"

namespace coca::cuda {

// The kernels are compiled for this compute capability and newer ones.
inline constexpr int kLeastMajor = 8, kLeastMinor = 0;

struct Gpu {
  Device device;
  std::string name;          // "NVIDIA H200"
  int major = 0, minor = 0;  // compute capability
  size_t bytes = 0;          // of memory
};
struct Gpus {
  std::vector<Gpu> list;
  std::string none;  // why the list is empty: no driver, an old one, no device, a build without CUDA
};
Gpus gpus();

// Lives as long as the process. Throws Error (kInvalidArgument) where there is no such GPU, or it is too old, saying
// why.
DeviceMemory& device_memory(int index);

}  // namespace coca::cuda

// coca/kernels/cuda/device.h - the GPUs that CUDA finds, and their memory. In builds without CUDA, kernels/cuda_stub
// provides the same functions, which find no GPU.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "coca/tensor/device_memory.h"

namespace coca::cuda {

// The oldest compute capability that the kernels are compiled for.
inline constexpr int kLeastMajor = 8, kLeastMinor = 0;

struct Gpu {
  Device device;
  std::string name;          // "NVIDIA H200"
  int major = 0, minor = 0;  // compute capability
  size_t bytes = 0;          // of memory
};
inline bool new_enough(const Gpu& gpu) {
  return gpu.major > kLeastMajor || (gpu.major == kLeastMajor && gpu.minor >= kLeastMinor);
}
struct Gpus {
  std::vector<Gpu> list;
  std::string none;  // why the list is empty: no driver, an old one, no device, a build without CUDA
};
Gpus gpus();

// Lives as long as the process. Throws Error (kInvalidArgument) with the reason if there is no such GPU or it is too
// old.
DeviceMemory& device_memory(int index);

}  // namespace coca::cuda

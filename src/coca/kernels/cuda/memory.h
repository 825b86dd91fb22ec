// coca/kernels/cuda/memory.h - one GPU's memory and stream. Internal to kernels/cuda.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "coca/kernels/cuda/device.h"

namespace coca::cuda {

std::unique_ptr<DeviceMemory> open_memory(const Gpu& gpu);
// The stream of a GPU whose memory came from open_memory or device_memory. Makes it the calling thread's current GPU.
cudaStream_t use_stream(DeviceMemory&);

}  // namespace coca::cuda

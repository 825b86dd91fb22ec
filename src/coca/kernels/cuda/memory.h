// coca/kernels/cuda/memory.h - one GPU's memory and stream. Internal to kernels/cuda.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "coca/kernels/cuda/device.h"

namespace coca::cuda {

std::unique_ptr<DeviceMemory> open_memory(const Gpu& gpu);

}  // namespace coca::cuda

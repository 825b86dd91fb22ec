// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cuda/device.h"

namespace coca::cuda {

namespace {

constexpr const char* kWhy = "this build has no CUDA (configure with the preset cuda)";

}  // namespace

Gpus gpus() { return {.list = {}, .none = kWhy}; }

DeviceMemory& device_memory(int index) { fail(ErrorKind::kInvalidArgument, "cuda:{} cannot be used: {}", index, kWhy); }

}  // namespace coca::cuda

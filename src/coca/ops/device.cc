// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/device.h"

namespace coca::ops {

Gpus gpus() { return cuda::gpus(); }

DeviceMemory* device_memory(Device device) { return device.is_cpu() ? nullptr : &cuda::device_memory(device.index); }

}  // namespace coca::ops

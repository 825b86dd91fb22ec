// coca/ops/device.h - the devices that ops may run on: which there are, and their memory for a Context.
//   Context cx(ops::device_memory(parse_device("cuda:0")));
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/cuda/device.h"

namespace coca::ops {

using cuda::Gpu;
using cuda::Gpus;
Gpus gpus();  // none may be there: Gpus::none says why

// Null for the CPU, whose memory needs nobody. Throws Error (kInvalidArgument) where the device is missing or too old.
DeviceMemory* device_memory(Device device);

}  // namespace coca::ops

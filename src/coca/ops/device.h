// coca/ops/device.h - the devices that ops can run on: which ones exist, and their memory for a Context.
//   Context cx(ops::device_memory(parse_device("cuda:0")));
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "coca/kernels/cuda/device.h"

namespace coca::ops {

using cuda::Gpu;
using cuda::Gpus;
Gpus gpus();  // the list may be empty: Gpus::none says why

// "cpu", "cuda", "cuda:1", or "auto": the first GPU that is new enough, else the CPU. Throws Error for anything else.
Device chosen_device(std::string_view text);

// Null for the CPU, which needs no DeviceMemory. Throws Error (kInvalidArgument) if the device is missing or too old.
DeviceMemory* device_memory(Device device);

}  // namespace coca::ops

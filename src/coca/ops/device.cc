// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/device.h"

namespace coca::ops {

Gpus gpus() { return cuda::gpus(); }

Device chosen_device(std::string_view text) {
  if (text != "auto") return parse_device(text, "auto, ");
  for (const Gpu& gpu : gpus().list)
    if (cuda::new_enough(gpu)) return gpu.device;
  return kHost;
}

DeviceMemory* device_memory(Device device) { return device.is_cpu() ? nullptr : &cuda::device_memory(device.index); }

}  // namespace coca::ops

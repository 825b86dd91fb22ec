// tests/support/simulated_gpu.h - the GPU that a test program finds if it links coca_gpu_stand_in.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/ops/device.h"
#include "coca/tensor/context.h"
#include "support/fake_device.h"

namespace coca::test {

inline FakeDevice& gpu() { return dynamic_cast<FakeDevice&>(*ops::device_memory({DeviceKind::kCuda, 0})); }

// Contexts that are made without a device are on the GPU, as with --device cuda.
struct OnTheGpu {
  OnTheGpu() { set_default_context_options({}, &gpu()); }
  ~OnTheGpu() { set_default_context_options({}); }
  OnTheGpu(const OnTheGpu&) = delete;
  OnTheGpu& operator=(const OnTheGpu&) = delete;
};

}  // namespace coca::test

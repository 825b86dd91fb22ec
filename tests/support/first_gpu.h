// tests/support/first_gpu.h - the GPU that a test program finds: the simulated one if it links coca_gpu_stand_in, else
// the machine's (tests/card).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include "coca/ops/device.h"
#include "coca/tensor/context.h"
#include "support/fake_device.h"

namespace coca::test {

inline DeviceMemory& gpu() { return *ops::device_memory({DeviceKind::kCuda, 0}); }

// Counts calls; null on a card.
inline FakeDevice* simulated_gpu() { return dynamic_cast<FakeDevice*>(&gpu()); }
#define COCA_SKIP_ON_A_CARD() \
  if (!::coca::test::simulated_gpu()) GTEST_SKIP() << "a card does not count its calls"

// Contexts that are made without a device are on the GPU, as with --device cuda.
struct OnTheGpu {
  OnTheGpu() { set_default_context_options({}, &gpu()); }
  ~OnTheGpu() { set_default_context_options({}); }
  OnTheGpu(const OnTheGpu&) = delete;
  OnTheGpu& operator=(const OnTheGpu&) = delete;
};

}  // namespace coca::test

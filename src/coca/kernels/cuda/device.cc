// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cuda/device.h"

#include <map>
#include <mutex>

#include "coca/kernels/cuda/check.h"
#include "coca/kernels/cuda/memory.h"

namespace coca::cuda {

namespace {

std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

// Why CUDA reports no devices.
std::string no_gpus(cudaError_t code) {
  if (code == cudaSuccess || code == cudaErrorNoDevice) return "CUDA finds no GPU here";
  if (code == cudaErrorInsufficientDriver) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);  // 0 without a driver
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0) return "there is no NVIDIA driver here";
    return fmt::format(
        "the NVIDIA driver knows CUDA up to {}, this program was built with {}; a newer driver is needed, or an older "
        "toolkit",
        version_text(driver), version_text(runtime));
  }
  return fmt::format("CUDA does not start: {} ({})", cudaGetErrorString(code), cudaGetErrorName(code));
}

}  // namespace

Gpus gpus() {
  Gpus found;
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess) {
    count = 0;
    cudaGetLastError();
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, i), "cudaGetDeviceProperties");
    found.list.push_back({.device = {DeviceKind::kCuda, i},
                          .name = properties.name,
                          .major = properties.major,
                          .minor = properties.minor,
                          .bytes = properties.totalGlobalMem});
  }
  if (count == 0) found.none = no_gpus(code);
  return found;
}

DeviceMemory& device_memory(int index) {
  static std::mutex mutex;
  // Never destroyed, since the driver may shut down first.
  static auto& open = *new std::map<int, std::unique_ptr<DeviceMemory>>;
  const std::lock_guard lock(mutex);
  std::unique_ptr<DeviceMemory>& memory = open[index];
  if (memory) return *memory;
  const Gpus found = gpus();
  COCA_CHECK(!found.list.empty(), "cuda:{} cannot be used: {}", index, found.none);
  const auto count = static_cast<int>(found.list.size());
  COCA_CHECK(index >= 0 && index<count, "cuda:{} does not exist; expected cuda:0{}", index, count> 1
                 ? fmt::format(" to cuda:{}", count - 1)
                 : "");
  const Gpu& gpu = found.list[static_cast<size_t>(index)];
  COCA_CHECK(new_enough(gpu), "cuda:{} ({}) has compute capability {}.{}; expected {}.{} or newer", index, gpu.name,
             gpu.major, gpu.minor, kLeastMajor, kLeastMinor);
  memory = open_memory(gpu);
  return *memory;
}

}  // namespace coca::cuda

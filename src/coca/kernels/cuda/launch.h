// coca/kernels/cuda/launch.h - the CUDA runtime's part of simt.h, for nvcc. Internal to kernels/cuda.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "coca/kernels/cuda/check.h"
#include "coca/kernels/cuda/memory.h"
#include "coca/tensor/context.h"

namespace coca::cuda {

// n numbers in the block's shared memory.
template <typename T, int n>
struct Shared {
  T values[n];
  __device__ T& operator[](int i) { return values[i]; }
};

// The block's shared memory whose size launch() determines.
class DynamicShared {
 public:
  __device__ DynamicShared() {
    extern __shared__ float memory[];
    floats_ = memory;
  }
  __device__ float& operator[](int i) const { return floats_[i]; }

 private:
  float* floats_;
};

struct Grid {
  dim3 blocks, threads;
  size_t shared_floats = 0;  // size of DynamicShared in each block
};

// Queues a kernel on the stream of the context's device.
template <typename... Parameters, typename... Args>
void launch(Context& context, const Grid& grid, void (*kernel)(Parameters...), const Args&... args) {
  const size_t bytes = grid.shared_floats * sizeof(float);
  const cudaStream_t stream = use_stream(*context.memory());
  if (bytes > 48 * 1024)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
          "cudaFuncSetAttribute");
  kernel<<<grid.blocks, grid.threads, bytes, stream>>>(static_cast<Parameters>(args)...);
  check(cudaGetLastError(), "launch of a kernel");
}

}  // namespace coca::cuda

// coca/kernels/cuda/simt.h - the language of the GPU kernels: plain CUDA C++ and the few helpers below. Kernels are
// compiled twice: by nvcc for GPUs, and as C++ against tests/support/gpu, which runs the threads of a block as fibres.
// The op tests can therefore check them on a machine without a GPU, including races in shared memory. This requires
// some rules:
//   - kernels are started by launch(), and receive only numbers and device pointers by value
//   - shared memory is Shared<T, n> or dynamic_shared(), so that its accesses can be checked
//   - no inline PTX and no device libraries; sums are in a fixed order, without atomics
// Internal to kernels/cuda.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/base/dtype.h"
#ifdef __CUDACC__
#include "coca/kernels/cuda/launch.h"
#else
#include "gpu/stand_in.h"  // from tests/support
#endif

namespace coca::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

// Elements as floats. Stores to bf16 round to nearest even.
__device__ inline float load(const float* p) { return *p; }
__device__ inline float load(const BF16* p) { return static_cast<float>(*p); }
__device__ inline void store(float* p, float x) { *p = x; }
__device__ inline void store(BF16* p, float x) { *p = BF16(x); }

// The sum (or maximum) over the lanes of a warp, returned in all lanes, with the same order in every run.
template <typename T>
__device__ inline T warp_sum(T x) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(kAllLanes, x, lanes);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, x, lanes);
    x = x > other || !(x == x) ? x : other;  // keeps NaN
  }
  return x;
}

// The same over a block of whole warps. `work` may be reused after the next __syncthreads().
template <typename T>
using BlockWork = Shared<T, kWarp>;
template <typename T>
__device__ inline T block_sum(T x, BlockWork<T>& work) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp,
            warps = static_cast<int>(blockDim.x) / kWarp;
  x = warp_sum(x);
  if (lane == 0) work[warp] = x;
  __syncthreads();
  return warp_sum(lane < warps ? static_cast<T>(work[lane]) : T(0));
}

// One thread for each element, up to a number of blocks beyond which each thread processes several (grid_stride).
inline constexpr int kThreads = 256;
inline unsigned blocks_for(int64_t elements) {
  const int64_t blocks = (elements + kThreads - 1) / kThreads;
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks > 65536 ? 65536 : blocks);
}
// Usage: for (int64_t i = grid_start(); i < n; i += grid_stride())
__device__ inline int64_t grid_start() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline int64_t grid_stride() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

}  // namespace coca::cuda

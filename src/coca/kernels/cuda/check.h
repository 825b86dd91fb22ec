// coca/kernels/cuda/check.h - turns CUDA's error codes into Errors. Internal to kernels/cuda.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include "coca/base/error.h"

namespace coca::cuda {

inline void check(cudaError_t code, const char* call) {
  COCA_CHECK_AS(kIo, code == cudaSuccess, "[cuda] {}: {} ({})", call, cudaGetErrorString(code), cudaGetErrorName(code));
}

}  // namespace coca::cuda

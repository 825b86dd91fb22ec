// coca/kernels/cuda/cublaslt.h - the functions of cuBLASLt that coca uses. The library is opened on first use, so the
// program starts without it. Internal to kernels/cuda.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cublasLt.h>

namespace coca::cuda {

struct CublasLt {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtGetStatusString) status_text = nullptr;
  decltype(&cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
};

// If the library is missing or lacks a function, throws Error (kIo) naming the library and where it was searched for.
const CublasLt& cublaslt();
// Replaces the library in tests; null restores it.
void replace_cublaslt(const CublasLt*);

}  // namespace coca::cuda

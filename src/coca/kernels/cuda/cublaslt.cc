// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cuda/cublaslt.h"

#include <dlfcn.h>

#include <string>

#include "coca/base/error.h"

namespace coca::cuda {

namespace {

const CublasLt* replacement = nullptr;

CublasLt open_library() {
  const std::string name = fmt::format("libcublasLt.so.{}", CUBLAS_VER_MAJOR);
  void* library = ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  COCA_CHECK_AS(
      kIo, library != nullptr,
      "[cuda] {} cannot be opened: {}; install cuBLAS {} (it comes with the CUDA toolkit and with PyTorch), or "
      "put its folder into LD_LIBRARY_PATH",
      name, ::dlerror(), CUBLAS_VER_MAJOR);
  CublasLt all;
  const auto find = [&]<typename Function>(Function& function, const char* symbol) {
    function = reinterpret_cast<Function>(::dlsym(library, symbol));
    COCA_CHECK_AS(kIo, function != nullptr, "[cuda] {} has no {}; install cuBLAS {}.{} or newer", name, symbol,
                  CUBLAS_VER_MAJOR, CUBLAS_VER_MINOR);
  };
  find(all.create, "cublasLtCreate");
  find(all.status_text, "cublasLtGetStatusString");
  find(all.desc_create, "cublasLtMatmulDescCreate");
  find(all.desc_destroy, "cublasLtMatmulDescDestroy");
  find(all.desc_set, "cublasLtMatmulDescSetAttribute");
  find(all.layout_create, "cublasLtMatrixLayoutCreate");
  find(all.layout_destroy, "cublasLtMatrixLayoutDestroy");
  find(all.preference_create, "cublasLtMatmulPreferenceCreate");
  find(all.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  find(all.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  find(all.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  find(all.matmul, "cublasLtMatmul");
  return all;
}

}  // namespace

const CublasLt& cublaslt() {
  if (replacement != nullptr) return *replacement;
  static const CublasLt library = open_library();
  return library;
}

void replace_cublaslt(const CublasLt* other) { replacement = other; }

}  // namespace coca::cuda

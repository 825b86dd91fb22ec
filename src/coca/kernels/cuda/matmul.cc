// Products by cuBLASLt, which reads matrices in column-major order. A row-major matrix then looks transposed, so the
// request is c^T = op(b)^T op(a)^T with b as the first operand.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cuda/matmul.h"

#include <array>
#include <map>
#include <memory>
#include <mutex>

#include "coca/kernels/args/leading.h"
#include "coca/kernels/cuda/cublaslt.h"
#include "coca/kernels/cuda/memory.h"

namespace coca::cuda {

namespace {

constexpr size_t kWorkspace = size_t{32} << 20;  // NVIDIA's recommendation for compute capability 9.0

void check(cublasStatus_t status, const char* call) {
  COCA_CHECK_AS(kIo, status == CUBLAS_STATUS_SUCCESS, "[cuda] {}: {}", call, cublaslt().status_text(status));
}

cudaDataType_t data_type(DType type) { return type == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F; }

// The common alignment of a matrix's first element and its rows, up to 16 bytes.
uint32_t alignment(TensorRef t) {
  const auto places =
      reinterpret_cast<uintptr_t>(t.data) | static_cast<uintptr_t>(ops::leading(t)) * dtype_size(t.dtype);
  uint32_t bytes = 16;
  while (places % bytes != 0) bytes /= 2;
  return bytes;
}

template <typename T, auto Destroy>
struct Owned {
  T handle = nullptr;
  ~Owned() {
    if (handle != nullptr) (cublaslt().*Destroy)(handle);
  }
  Owned() = default;
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
};
using Description = Owned<cublasLtMatmulDesc_t, &CublasLt::desc_destroy>;
using Layout = Owned<cublasLtMatrixLayout_t, &CublasLt::layout_destroy>;
using Preference = Owned<cublasLtMatmulPreference_t, &CublasLt::preference_destroy>;

// The descriptions for products of one shape, with the chosen algorithm.
struct Planned {
  Description description;
  Layout a, b, c;  // cuBLASLt's a is our b
  cublasLtMatmulAlgo_t algorithm{};
  size_t workspace = 0;
};

void make_layout(Layout& layout, TensorRef t) {
  check(cublaslt().layout_create(&layout.handle, data_type(t.dtype), static_cast<uint64_t>(t.size(1)),
                                 static_cast<uint64_t>(t.size(0)), ops::leading(t)),
        "cublasLtMatrixLayoutCreate");
}

template <typename T>
void set(const Description& d, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check(cublaslt().desc_set(d.handle, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
}
template <typename T>
void set(const Preference& p, cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
  check(cublaslt().preference_set(p.handle, attribute, &value, sizeof value), "cublasLtMatmulPreferenceSetAttribute");
}

std::unique_ptr<Planned> plan(cublasLtHandle_t handle, const Matmul& p, const MatmulExtents& e) {
  auto planned = std::make_unique<Planned>();
  check(cublaslt().desc_create(&planned->description.handle, CUBLAS_COMPUTE_32F, CUDA_R_32F),
        "cublasLtMatmulDescCreate");
  const auto operation = [](Turn turn) { return turn == Turn::kYes ? CUBLAS_OP_T : CUBLAS_OP_N; };
  set(planned->description, CUBLASLT_MATMUL_DESC_TRANSA, operation(p.turn_b));
  set(planned->description, CUBLASLT_MATMUL_DESC_TRANSB, operation(p.turn_a));
  make_layout(planned->a, p.b);
  make_layout(planned->b, p.a);
  make_layout(planned->c, p.c);
  Preference preference;
  check(cublaslt().preference_create(&preference.handle), "cublasLtMatmulPreferenceCreate");
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspace});
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(p.b));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(p.a));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(p.c));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(p.c));
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  check(cublaslt().heuristic(handle, planned->description.handle, planned->a.handle, planned->b.handle,
                             planned->c.handle, planned->c.handle, preference.handle, 1, &found, &count),
        "cublasLtMatmulAlgoGetHeuristic");
  COCA_CHECK_AS(kIo, count > 0, "[cuda] cuBLASLt has no algorithm for a product of {} x {} x {} in {}", e.m, e.n, e.k,
                dtype_name(p.a.dtype));
  planned->algorithm = found.algo;
  planned->workspace = found.workspaceSize;
  return planned;
}

// Handle and plans of one device.
class Products {
 public:
  Products() { check(cublaslt().create(&handle_), "cublasLtCreate"); }

  const Planned& of(const Matmul& p, const MatmulExtents& e) {
    const Key key{e.m,
                  e.n,
                  e.k,
                  ops::leading(p.a),
                  ops::leading(p.b),
                  ops::leading(p.c),
                  alignment(p.a) << 10 | alignment(p.b) << 5 | alignment(p.c),
                  static_cast<int64_t>(p.a.dtype) << 8 | static_cast<int64_t>(p.c.dtype),
                  static_cast<int64_t>(p.turn_a) << 1 | static_cast<int64_t>(p.turn_b)};
    std::unique_ptr<Planned>& planned = plans_[key];
    if (!planned) planned = plan(handle_, p, e);
    return *planned;
  }
  cublasLtHandle_t handle() const { return handle_; }

 private:
  using Key = std::array<int64_t, 9>;
  cublasLtHandle_t handle_ = nullptr;  // lives as long as the process
  std::map<Key, std::unique_ptr<Planned>> plans_;
};

std::mutex products_mutex;

Products& products_of(Device device) {
  static std::map<int, Products> all;
  return all[device.index];
}

}  // namespace

void matmul(Context& cx, const Matmul& p) {
  const MatmulExtents e = check_matmul(p);
  const cudaStream_t stream = use_stream(*cx.memory());
  void* workspace = cx.scratch(kWorkspace);
  const float one = 1.0f, beta = p.write == ops::Write::kAccumulate ? 1.0f : 0.0f;
  const std::lock_guard lock(products_mutex);
  Products& products = products_of(cx.device());
  const Planned& planned = products.of(p, e);
  check(cublaslt().matmul(products.handle(), planned.description.handle, &one, p.b.data, planned.a.handle, p.a.data,
                          planned.b.handle, &beta, p.c.data, planned.c.handle, p.c.data, planned.c.handle,
                          &planned.algorithm, workspace, planned.workspace, stream),
        "cublasLtMatmul");
}

}  // namespace coca::cuda

// Calls to cuBLASLt. A fake library reads the descriptions it is given, computes in column-major order as cuBLASLt
// does, and fails on request.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cuda/cublaslt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <string>

#include "coca/base/rng.h"
#include "coca/kernels/cuda/matmul.h"
#include "coca/kernels/cuda/memory.h"
#include "coca/tensor/transfer.h"
#include "cuda_runtime/fake_cudart.h"
#include "support/message.h"

namespace coca::cublaslt_test {
namespace {

using cuda::Matmul;
using cuda::Turn;
using ops::Write;
using testing::HasSubstr;

struct Description {
  cublasOperation_t a = CUBLAS_OP_N, b = CUBLAS_OP_N;
};
struct Layout {
  cudaDataType_t type;
  int64_t rows, cols, ld;
};
struct Preference {
  uint64_t workspace = 0;
  std::map<int, uint32_t> alignment;
};

struct Fake {
  std::string failing;
  int found = 1;
  int open = 0;  // handles that have not been destroyed
  int heuristics = 0;
  Preference wanted;  // in the last call of the heuristic
} fake;

cublasStatus_t status(const char* call) {
  return fake.failing == call ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
}

double element(const Layout& l, const void* data, int64_t row, int64_t col) {
  EXPECT_TRUE(row >= 0 && row < l.rows && col >= 0 && col < l.cols && l.ld >= l.rows);
  const int64_t at = col * l.ld + row;
  return l.type == CUDA_R_16BF ? static_cast<double>(static_cast<float>(static_cast<const BF16*>(data)[at]))
                               : static_cast<double>(static_cast<const float*>(data)[at]);
}

void expect_aligned(cublasLtMatmulPreferenceAttributes_t which, const void* p, const Layout& l) {
  const uint64_t size = l.type == CUDA_R_16BF ? 2 : 4;
  EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % fake.wanted.alignment.at(which), 0u);
  EXPECT_EQ(static_cast<uint64_t>(l.ld) * size % fake.wanted.alignment.at(which), 0u);
}

cublasStatus_t matmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha, const void* A,
                      cublasLtMatrixLayout_t la, const void* B, cublasLtMatrixLayout_t lb, const void* beta,
                      const void* C, cublasLtMatrixLayout_t lc, void* D, cublasLtMatrixLayout_t ld,
                      const cublasLtMatmulAlgo_t*, void* workspace, size_t bytes, cudaStream_t) {
  if (status("matmul") != CUBLAS_STATUS_SUCCESS) return status("matmul");
  const Description& d = *reinterpret_cast<Description*>(desc);
  const auto &a = *reinterpret_cast<Layout*>(la), &b = *reinterpret_cast<Layout*>(lb),
             &c = *reinterpret_cast<Layout*>(lc);
  EXPECT_EQ(C, D);
  EXPECT_EQ(lc, ld);
  EXPECT_EQ(a.type, b.type);
  EXPECT_TRUE(c.type == CUDA_R_32F || a.type == CUDA_R_16BF);
  EXPECT_TRUE(test::on_fake_gpu(A, 1) && test::on_fake_gpu(B, 1) && test::on_fake_gpu(C, 1));
  EXPECT_TRUE(test::on_fake_gpu(workspace, bytes));
  expect_aligned(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, A, a);
  expect_aligned(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, B, b);
  expect_aligned(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, C, c);
  const bool ta = d.a == CUBLAS_OP_T, tb = d.b == CUBLAS_OP_T;
  const int64_t m = c.rows, n = c.cols, k = ta ? a.rows : a.cols;
  EXPECT_EQ(ta ? a.cols : a.rows, m);
  EXPECT_EQ(tb ? b.rows : b.cols, n);
  EXPECT_EQ(tb ? b.cols : b.rows, k);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      const float factor = *static_cast<const float*>(beta);
      double sum = factor == 0.0f ? 0.0 : static_cast<double>(factor) * element(c, C, i, j);
      for (int64_t l = 0; l < k; ++l)
        sum += static_cast<double>(*static_cast<const float*>(alpha)) * element(a, A, ta ? l : i, ta ? i : l) *
               element(b, B, tb ? j : l, tb ? l : j);
      if (c.type == CUDA_R_16BF)
        static_cast<BF16*>(D)[j * c.ld + i] = BF16(static_cast<float>(sum));
      else
        static_cast<float*>(D)[j * c.ld + i] = static_cast<float>(sum);
    }
  return CUBLAS_STATUS_SUCCESS;
}

template <typename Handle, typename T>
cublasStatus_t made(Handle* handle, T* value, const char* call) {
  if (status(call) != CUBLAS_STATUS_SUCCESS) {
    delete value;
    return status(call);
  }
  *handle = reinterpret_cast<Handle>(value);
  ++fake.open;
  return CUBLAS_STATUS_SUCCESS;
}
template <typename T, typename Handle>
cublasStatus_t gone(Handle handle) {
  delete reinterpret_cast<T*>(handle);
  --fake.open;
  return CUBLAS_STATUS_SUCCESS;
}

const cuda::CublasLt kFake{
    .create =
        [](cublasLtHandle_t* handle) {
          *handle = reinterpret_cast<cublasLtHandle_t>(&fake);
          return status("create");
        },
    .status_text = [](cublasStatus_t) { return "not supported, says the fake"; },
    .desc_create =
        [](cublasLtMatmulDesc_t* handle, cublasComputeType_t compute, cudaDataType_t scale) {
          EXPECT_EQ(compute, CUBLAS_COMPUTE_32F);  // not TF32
          EXPECT_EQ(scale, CUDA_R_32F);
          return made(handle, new Description, "desc_create");
        },
    .desc_destroy = [](cublasLtMatmulDesc_t handle) { return gone<Description>(handle); },
    .desc_set =
        [](cublasLtMatmulDesc_t handle, cublasLtMatmulDescAttributes_t which, const void* value, size_t) {
          auto& d = *reinterpret_cast<Description*>(handle);
          (which == CUBLASLT_MATMUL_DESC_TRANSA ? d.a : d.b) = *static_cast<const cublasOperation_t*>(value);
          return status("desc_set");
        },
    .layout_create =
        [](cublasLtMatrixLayout_t* handle, cudaDataType_t type, uint64_t rows, uint64_t cols, int64_t ld) {
          return made(handle, new Layout{type, static_cast<int64_t>(rows), static_cast<int64_t>(cols), ld},
                      "layout_create");
        },
    .layout_destroy = [](cublasLtMatrixLayout_t handle) { return gone<Layout>(handle); },
    .preference_create =
        [](cublasLtMatmulPreference_t* handle) { return made(handle, new Preference, "preference_create"); },
    .preference_destroy = [](cublasLtMatmulPreference_t handle) { return gone<Preference>(handle); },
    .preference_set =
        [](cublasLtMatmulPreference_t handle, cublasLtMatmulPreferenceAttributes_t which, const void* value,
           size_t size) {
          auto& p = *reinterpret_cast<Preference*>(handle);
          if (size == sizeof(uint64_t))
            std::memcpy(&p.workspace, value, size);
          else
            std::memcpy(&p.alignment[which], value, size);
          return status("preference_set");
        },
    .heuristic =
        [](cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
           cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatmulPreference_t preference, int,
           cublasLtMatmulHeuristicResult_t result[], int* count) {
          fake.wanted = *reinterpret_cast<Preference*>(preference);
          ++fake.heuristics;
          result[0].workspaceSize = static_cast<size_t>(fake.wanted.workspace);
          *count = fake.found;
          return status("heuristic");
        },
    .matmul = matmul};

class CublasLtProducts : public testing::Test {
 protected:
  CublasLtProducts() {
    test::fake_cuda() = test::FakeCuda{.gpus = {test::FakeGpu{.bytes = size_t{256} << 20}}};
    fake = {};
    cuda::replace_cublaslt(&kFake);
    memory = cuda::open_memory(cuda::gpus().list.at(0));
    cx.emplace(memory.get());
  }
  ~CublasLtProducts() override { cuda::replace_cublaslt(nullptr); }

  Tensor random(const Dims& shape, DType type, uint64_t seed) {
    Tensor t(shape, type);
    Rng rng(seed);
    for (int64_t i = 0; i < t.numel(); ++i) {
      const float x = static_cast<float>(rng.uniform() - 0.5);
      if (type == DType::kBF16)
        t.values<BF16>()[static_cast<size_t>(i)] = BF16(x);
      else
        t.values<float>()[static_cast<size_t>(i)] = x;
    }
    return t;
  }
  static double at(const Tensor& t, int64_t row, int64_t col) {
    const auto i = static_cast<size_t>(row * t.size(1) + col);
    return t.dtype() == DType::kBF16 ? static_cast<double>(static_cast<float>(t.values<BF16>()[i]))
                                     : static_cast<double>(t.values<float>()[i]);
  }

  std::unique_ptr<DeviceMemory> memory;
  std::optional<Context> cx;
};

// The product uses the first columns of wider tensors, so rows have a stride.
TEST_F(CublasLtProducts, AreAskedForByColumns) {
  constexpr int64_t m = 5, n = 7, k = 3, gap = 2;
  uint64_t seed = 1;
  for (const Turn ta : {Turn::kNo, Turn::kYes})
    for (const Turn tb : {Turn::kNo, Turn::kYes})
      for (const Write write : {Write::kAssign, Write::kAccumulate})
        for (const auto& [in, out] :
             {std::pair{DType::kF32, DType::kF32}, {DType::kBF16, DType::kF32}, {DType::kBF16, DType::kBF16}}) {
          const Dims da = ta == Turn::kYes ? Dims{k, m} : Dims{m, k}, db = tb == Turn::kYes ? Dims{n, k} : Dims{k, n};
          const Tensor a = random({da[0], da[1] + gap}, in, seed++), b = random({db[0], db[1] + gap}, in, seed++),
                       c = random({m, n + gap}, out, seed++);
          const Tensor a_there = to_device(*cx, a), b_there = to_device(*cx, b);
          Tensor c_there = to_device(*cx, c);
          memory->synchronize();  // so that the fake, which computes immediately, sees the copies
          cuda::matmul(*cx, {.a = a_there.ref().narrow(1, 0, da[1]),
                             .turn_a = ta,
                             .b = b_there.ref().narrow(1, 0, db[1]),
                             .turn_b = tb,
                             .c = c_there.ref().narrow(1, 0, n),
                             .write = write});
          const Tensor got = to_host(*cx, c_there);
          for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < n + gap; ++j) {
              double want = write == Write::kAccumulate || j >= n ? at(c, i, j) : 0.0;
              for (int64_t l = 0; l < k && j < n; ++l)
                want += (ta == Turn::kYes ? at(a, l, i) : at(a, i, l)) * (tb == Turn::kYes ? at(b, j, l) : at(b, l, j));
              // One rounding of sums below 2: half a unit in the last place.
              ASSERT_NEAR(at(got, i, j), want, out == DType::kBF16 ? 0x1p-8 : 0x1p-24) << i << " " << j;
            }
        }
}

TEST_F(CublasLtProducts, AShapeIsPlannedOnce) {
  const Tensor a = to_device(*cx, random({11, 13}, DType::kF32, 1)),
               b = to_device(*cx, random({13, 17}, DType::kF32, 2));
  Tensor c({11, 17}, DType::kF32, memory.get());
  const Matmul p{.a = a, .b = b, .c = c};
  cuda::matmul(*cx, p);
  const int before = fake.heuristics, open = fake.open;
  cuda::matmul(*cx, p);
  EXPECT_EQ(fake.heuristics, before);
  EXPECT_EQ(fake.open, open);
}

// Each failing call is an Error that names it, and no handle stays open.
TEST_F(CublasLtProducts, EveryFailureIsNamed) {
  Tensor c({2, 2}, DType::kF32, memory.get());
  int64_t k = 100;  // new shapes, so that nothing is planned yet
  const auto error = [&](const char* failing) {
    fake.failing = failing;
    const int open = fake.open;
    const Tensor a({2, ++k}, DType::kF32, memory.get()), b({k, 2}, DType::kF32, memory.get());
    const std::string text = test::message([&] { cuda::matmul(*cx, {.a = a, .b = b, .c = c}); });
    if (std::string_view(failing) != "matmul") {
      EXPECT_EQ(fake.open, open) << failing;
    }
    return text;
  };
  EXPECT_THAT(error("desc_create"), HasSubstr("cublasLtMatmulDescCreate: not supported, says the fake"));
  EXPECT_THAT(error("desc_set"), HasSubstr("cublasLtMatmulDescSetAttribute"));
  EXPECT_THAT(error("layout_create"), HasSubstr("cublasLtMatrixLayoutCreate"));
  EXPECT_THAT(error("preference_create"), HasSubstr("cublasLtMatmulPreferenceCreate"));
  EXPECT_THAT(error("preference_set"), HasSubstr("cublasLtMatmulPreferenceSetAttribute"));
  EXPECT_THAT(error("heuristic"), HasSubstr("cublasLtMatmulAlgoGetHeuristic"));
  EXPECT_THAT(error("matmul"), HasSubstr("cublasLtMatmul"));
  fake.found = 0;
  EXPECT_THAT(error(""), HasSubstr("no algorithm for a product of 2 x 2 x 108 in F32"));
}

}  // namespace
}  // namespace coca::cublaslt_test

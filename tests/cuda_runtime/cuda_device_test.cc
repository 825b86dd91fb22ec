// How kernels/cuda handles GPUs, their memory and their errors. The CUDA runtime is a fake, so no GPU is needed and
// every error can be produced. Kernels, and whether the real runtime behaves like the fake, are tested elsewhere.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cuda/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coca/kernels/cuda/memory.h"
#include "coca/tensor/arena.h"
#include "coca/tensor/transfer.h"
#include "cuda_runtime/fake_cudart.h"
#include "support/message.h"

namespace coca::cuda_device_test {
namespace {

using test::fake_cuda;
using test::FakeCuda;
using test::FakeGpu;
using test::message;
using ::testing::Each;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

class Cuda : public testing::Test {
 protected:
  Cuda() { fake_cuda() = FakeCuda{.gpus = {FakeGpu{}}}; }
  ~Cuda() override {
    EXPECT_EQ(fake_cuda().device_blocks, 0u);
    EXPECT_EQ(fake_cuda().pinned_blocks, 0u);
    EXPECT_EQ(fake_cuda().events, 0u);
  }
  // cuda::device_memory would stay open for the next test.
  static std::unique_ptr<DeviceMemory> opened() { return cuda::open_memory(cuda::gpus().list.at(0)); }
};

TEST_F(Cuda, ListsGpus) {
  fake_cuda().gpus = {{.name = "Fake H200", .major = 9, .minor = 0, .bytes = 1000},
                      {.name = "Fake T4", .major = 7, .minor = 5, .bytes = 10}};
  const cuda::Gpus found = cuda::gpus();
  ASSERT_EQ(found.list.size(), 2u);
  EXPECT_EQ(found.none, "");
  EXPECT_EQ(found.list[0].name, "Fake H200");
  EXPECT_EQ(found.list[0].major, 9);
  EXPECT_EQ(found.list[0].bytes, 1000u);
  EXPECT_EQ(found.list[1].device.text(), "cuda:1");
}

TEST_F(Cuda, SaysWhyThereIsNoGpu) {
  FakeCuda& fake = fake_cuda();
  const auto why = [&](cudaError_t start, int driver) {
    fake.start = start;
    fake.driver = driver;
    const cuda::Gpus found = cuda::gpus();
    EXPECT_TRUE(found.list.empty());
    EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "left for the next call";
    EXPECT_EQ(message([] { cuda::device_memory(5); }), "cuda:5 cannot be used: " + found.none);
    return found.none;
  };
  EXPECT_EQ(why(cudaErrorNoDevice, 13000), "CUDA finds no GPU here");
  EXPECT_EQ(why(cudaErrorInsufficientDriver, 0), "there is no NVIDIA driver here");
  EXPECT_EQ(why(cudaErrorInsufficientDriver, 12040),
            "the NVIDIA driver knows CUDA up to 12.4, this program was built with 13.0; a newer driver is needed, or "
            "an older toolkit");
  EXPECT_THAT(why(cudaErrorInitializationError, 13000), HasSubstr("CUDA does not start: some error"));
  fake.gpus.clear();
  EXPECT_EQ(why(cudaSuccess, 13000), "CUDA finds no GPU here");
}

TEST_F(Cuda, MissingAndOldGpusAreErrors) {
  EXPECT_EQ(message([] { cuda::device_memory(1); }), "cuda:1 does not exist; expected cuda:0");
  fake_cuda().gpus = {FakeGpu{}, {.name = "Fake T4", .major = 7, .minor = 5, .bytes = 1000}};
  EXPECT_EQ(message([] { cuda::device_memory(2); }), "cuda:2 does not exist; expected cuda:0 to cuda:1");
  EXPECT_EQ(message([] { cuda::device_memory(-1); }), "cuda:-1 does not exist; expected cuda:0 to cuda:1");
  EXPECT_EQ(message([] { cuda::device_memory(1); }),
            "cuda:1 (Fake T4) has compute capability 7.5; expected 8.0 or newer");
  DeviceMemory& memory = cuda::device_memory(0);
  EXPECT_EQ(&cuda::device_memory(0), &memory);
  EXPECT_EQ(memory.name(), "Fake A100");
}

TEST_F(Cuda, TensorsAreCopiedThereAndBack) {
  const auto gpu = opened();
  Context cx(gpu.get());
  Tensor host({4, 4});
  for (int i = 0; i < 16; ++i) host.values<float>()[static_cast<size_t>(i)] = static_cast<float>(i);
  const Tensor there = to_device(cx, host);
  EXPECT_TRUE(test::on_fake_gpu(there.ref().data, 64));
  Tensor second({4, 4}, DType::kF32, gpu.get());
  EXPECT_THAT(to_host(cx, second).values<float>(), Each(0.0f));
  transfer(cx, second, there);
  EXPECT_THAT(to_host(cx, second).values<float>(), ElementsAreArray(host.values<float>()));
  EXPECT_TRUE(test::on_fake_gpu(cx.scratch(100), 100));
  EXPECT_EQ(gpu->room().free, (size_t{1} << 20) - 2 * 64 - 100);
  const Tensor none({0}, DType::kF32, gpu.get());
  EXPECT_FALSE(none.empty());
}

TEST_F(Cuda, PinnedCopiesAreQueued) {
  const auto gpu = opened();
  Context cx(gpu.get());
  Buffer pinned = allocate_pinned(gpu.get(), 64, "a batch");
  const MutTensorRef staged(pinned.get(), DType::kF32, {16}, kHost);
  EXPECT_EQ(staged.as<float>()[3], 0.0f);
  Tensor there({16}, DType::kF32, gpu.get());
  staged.as<float>()[3] = 7.0f;
  transfer(cx, there, staged);
  const MutTensorRef back = staged.narrow(0, 0, 16);
  gpu->synchronize();
  staged.as<float>()[3] = 0.0f;
  transfer(cx, back, there);
  EXPECT_EQ(staged.as<float>()[3], 0.0f) << "not waited for";
  gpu->synchronize();
  EXPECT_EQ(staged.as<float>()[3], 7.0f);
}

// Copies of things that the host goes on to change pass through pinned memory, in order and of any size. The host waits
// only when it comes to a half that the device has still to read.
TEST_F(Cuda, CopiesThroughPinnedMemoryDoNotWait) {
  constexpr size_t kBytes = size_t{20} << 20;  // two and a half halves
  fake_cuda().gpus[0].bytes = size_t{64} << 20;
  const auto gpu = opened();
  const Buffer there = allocate(gpu.get(), kBytes, "a test");
  std::vector<uint32_t> host(kBytes / 4), back(kBytes / 4);
  for (int i = 0; i < 100; ++i) {
    host[0] = static_cast<uint32_t>(i);
    gpu->upload_copy(there.get() + 4 * i, host.data(), 4);
  }
  EXPECT_EQ(fake_cuda().waits, 0u);
  gpu->download(back.data(), there.get(), 400);
  gpu->synchronize();
  for (uint32_t i = 0; i < 100; ++i) EXPECT_EQ(back[i], i);
  for (size_t i = 0; i < host.size(); ++i) host[i] = static_cast<uint32_t>(i * 2654435761u);
  const std::vector<uint32_t> wanted = host;
  gpu->upload_copy(there.get(), host.data(), kBytes);
  std::fill(host.begin(), host.end(), 0u);
  gpu->download(back.data(), there.get(), kBytes);
  gpu->synchronize();
  EXPECT_TRUE(back == wanted);
  EXPECT_GE(fake_cuda().waits, 1u);
  EXPECT_EQ(fake_cuda().pinned_blocks, 1u);
}

TEST_F(Cuda, OutOfMemoryNamesTheTensorAndLeavesTheGpuUsable) {
  const auto gpu = opened();
  ArenaPlan plan;
  MutTensorRef q, scores;
  plan.add("layer.0.q", {16}, DType::kF32, &q);
  plan.add("layer.0.scores", {1 << 19}, DType::kF32, &scores);
  EXPECT_EQ(message([&] { Arena(plan, gpu.get()); }),
            "out of memory on cuda:0 (Fake A100): no 2.0 MiB for 2 activations, the largest layer.0.scores [524288] "
            "F32 (a smaller batch or "
            "shorter sequences need less); 1.0 MiB of 1.0 MiB are free");
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  const Tensor small({4}, DType::kF32, gpu.get());
  fake_cuda().failing["cudaHostAlloc"] = cudaErrorMemoryAllocation;
  EXPECT_EQ(message([&] { allocate_pinned(gpu.get(), 1 << 20, "a batch"); }),
            "out of memory: no 1.0 MiB on the host, pinned for cuda:0, for a batch");
}

TEST_F(Cuda, EachFailingCallIsOneError) {
  const auto gpu = opened();
  Context cx(gpu.get());
  Tensor host({4}), there({4}, DType::kF32, gpu.get());
  const auto failing = [&](const char* call, const auto& body) {
    fake_cuda().failing = {{call, cudaErrorIllegalAddress}};
    const std::string text = message(body);
    EXPECT_EQ(text, fmt::format("[cuda] {}: an illegal memory access was encountered (cudaErrorIllegalAddress)", call));
    fake_cuda().failing.clear();
    cudaGetLastError();
  };
  failing("cudaSetDevice", [&] { gpu->synchronize(); });
  failing("cudaStreamSynchronize", [&] { gpu->synchronize(); });
  failing("cudaMemcpyAsync", [&] { transfer(cx, there, host); });
  failing("cudaMemcpyAsync", [&] { transfer(cx, host, there); });
  failing("cudaMemGetInfo", [&] { gpu->room(); });
  failing("cudaMalloc", [&] { Tensor({4}, DType::kF32, gpu.get()); });
  failing("cudaMemsetAsync", [&] { Tensor({4}, DType::kF32, gpu.get()); });  // the block is freed: see ~Cuda
  failing("cudaHostAlloc", [&] { allocate_pinned(gpu.get(), 4, "a batch"); });
  failing("cudaStreamCreateWithFlags", [&] { opened(); });
  failing("cudaHostAlloc", [&] { gpu->upload_copy(there.ref().data, host.ref().data, 16); });
  failing("cudaEventCreateWithFlags", [&] {
    const auto other = opened();
    other->upload_copy(there.ref().data, host.ref().data, 16);
  });
  failing("cudaMemcpyAsync", [&] { gpu->upload_copy(there.ref().data, host.ref().data, 16); });
  failing("cudaGetDeviceProperties", [&] { cuda::gpus(); });
}

}  // namespace
}  // namespace coca::cuda_device_test

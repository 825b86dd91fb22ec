// The simulated GPU (support/gpu/stand_in.h) detects errors in kernels and accepts correct ones.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "coca/kernels/cuda/device.h"
#include "coca/kernels/cuda/simt.h"
#include "coca/tensor/transfer.h"
#include "support/message.h"

namespace coca::cuda::stand_in_test {
namespace {

using testing::HasSubstr;

constexpr const char* kFine = "nothing was thrown";  // test::message

class StandIn : public testing::Test {
 protected:
  DeviceMemory& gpu = device_memory(0);
  Context cx{&gpu};

  template <typename... P, typename... A>
  std::string error_of(const Grid& grid, void (*kernel)(P...), const A&... args) {
    return test::message([&] {
      launch(cx, grid, kernel, args...);
      gpu.synchronize();
    });
  }
};

__global__ void number(int* out) { out[blockIdx.x * blockDim.x + threadIdx.x] = static_cast<int>(threadIdx.x); }

TEST_F(StandIn, RunsEveryThreadOfEveryBlock) {
  Tensor t({3 * 40}, DType::kI32, &gpu);
  launch(cx, {.blocks = 3, .threads = 40}, number, t.ref().as<int32_t>());
  const Tensor host = to_host(cx, t);
  for (int i = 0; i < 120; ++i) EXPECT_EQ(host.values<int32_t>()[static_cast<size_t>(i)], i % 40);
}

__global__ void sums(const float* x, float* out, int n) {
  __shared__ BlockWork<float> work;
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) sum += x[i];
  const float all = block_sum(sum, work);
  __syncthreads();
  const float again = block_sum(sum, work);
  if (threadIdx.x == 0) out[0] = all;
  if (threadIdx.x == blockDim.x - 1) out[1] = again;
}

TEST_F(StandIn, SumsOfABlock) {
  Tensor x({1000});
  std::iota(x.values<float>().begin(), x.values<float>().end(), 0.0f);
  const Tensor there = to_device(cx, x);
  for (const unsigned threads : {32u, 64u, 256u, 1024u}) {
    Tensor out({2}, DType::kF32, &gpu);
    launch(cx, {.blocks = 1, .threads = threads}, sums, there.ref().as<float>(), out.ref().as<float>(), 1000);
    const Tensor host = to_host(cx, out);
    EXPECT_EQ(host.values<float>()[0], 499500) << threads;  // integers below 2^24: exact
    EXPECT_EQ(host.values<float>()[1], 499500) << threads;
  }
}

enum class Fault { kNone, kReadsEarly, kWritesTwice, kOverwrites, kReadsNothing, kBeyond };
__global__ void neighbours(Fault fault, float* out) {
  __shared__ Shared<float, 64> cells;
  const int i = static_cast<int>(threadIdx.x);
  if (fault != Fault::kReadsNothing || i > 0) cells[i] = static_cast<float>(i);
  if (fault == Fault::kWritesTwice && i == 1) cells[0] = 1.0f;
  if (fault == Fault::kBeyond && i == 1) cells[64] = 1.0f;
  if (fault != Fault::kReadsEarly) __syncthreads();
  const float other = cells[(i + 1) % 64];
  if (fault != Fault::kOverwrites) __syncthreads();
  cells[i] = other;
  out[i] = other;
}

TEST_F(StandIn, RacesInSharedMemoryAreErrors) {
  Tensor out({64}, DType::kF32, &gpu);
  const auto error = [&](Fault fault) {
    return error_of({.blocks = 1, .threads = 64}, neighbours, fault, out.ref().as<float>());
  };
  EXPECT_EQ(error(Fault::kNone), kFine);
  EXPECT_THAT(error(Fault::kReadsEarly), HasSubstr("shared memory"));
  EXPECT_THAT(error(Fault::kWritesTwice), HasSubstr("write to the same place in shared memory without a barrier"));
  EXPECT_THAT(error(Fault::kOverwrites), HasSubstr("without a barrier between them"));
  EXPECT_THAT(error(Fault::kReadsNothing), HasSubstr("that no thread has written"));
  EXPECT_THAT(error(Fault::kBeyond), HasSubstr("place 64 of 64"));
  EXPECT_EQ(error(Fault::kNone), kFine);  // a failed launch has no effect on later ones
}

// The warp's barrier is enough within a warp, but not between warps.
__global__ void of_warps(bool across) {
  __shared__ Shared<int, 64> cells;
  const int i = static_cast<int>(threadIdx.x), lane = i % 32;
  cells[i] = i;
  __syncwarp();
  const int other = cells[across ? (i + 32) % 64 : i / 32 * 32 + (lane + 1) % 32];
  __syncwarp();
  cells[i] = other;
}

TEST_F(StandIn, WarpBarriersOrderOnlyTheirWarp) {
  EXPECT_EQ(error_of({.blocks = 2, .threads = 64}, of_warps, false), kFine);
  EXPECT_THAT(error_of({.blocks = 2, .threads = 64}, of_warps, true), HasSubstr("shared memory"));
}

__global__ void split_barrier() {
  if (threadIdx.x < 16)
    __syncthreads();
  else
    __syncwarp();
}
__global__ void leaves_early(float* out) {
  if (threadIdx.x == 3) return;
  out[threadIdx.x] = __shfl_xor_sync(kAllLanes, static_cast<float>(threadIdx.x), 1);
}
__global__ void dynamic(int cells, float* out) {
  DynamicShared shared;
  const int i = static_cast<int>(threadIdx.x);
  shared[cells - 1 - i] = static_cast<float>(i);
  __syncthreads();
  out[i] = shared[i];
}

TEST_F(StandIn, OtherFaultsOfAKernel) {
  Tensor out({32}, DType::kF32, &gpu);
  float* there = out.ref().as<float>();
  EXPECT_THAT(error_of({.blocks = 1, .threads = 32}, split_barrier), HasSubstr("are deadlocked"));
  EXPECT_THAT(error_of({.blocks = 1, .threads = 32}, leaves_early, there), HasSubstr("lane 2 reads from lane 3"));
  EXPECT_EQ(error_of({.blocks = 1, .threads = 32, .shared_floats = 32}, dynamic, 32, there), kFine);
  EXPECT_THAT(error_of({.blocks = 1, .threads = 32, .shared_floats = 31}, dynamic, 32, there),
              HasSubstr("place 31 of 31"));
  float here = 0;
  EXPECT_THAT(error_of({.blocks = 1, .threads = 1}, number, reinterpret_cast<int*>(&here)),
              HasSubstr("of host memory"));
  EXPECT_THAT(error_of({.blocks = 1, .threads = 2000}, split_barrier), HasSubstr("2000 threads in a block"));
}

}  // namespace
}  // namespace coca::cuda::stand_in_test

// tests/support/gpu/stand_in.h - simulates the CUDA runtime for kernels compiled as C++ (kernels/cuda/simt.h). The
// threads of a block are fibres on one host thread, so barriers and exchanges within a warp work as on a GPU. A launch
// fails if threads wait at different barriers, if a lane reads from a lane that has ended, if shared memory is read
// before it is written, or if two threads access the same element of shared memory without a barrier in between and at
// least one of them writes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "coca/base/error.h"
#include "coca/tensor/context.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct float2 {
  float x, y;
};
struct float4 {
  float x, y, z, w;
};

namespace coca::gpu {

struct Where {
  dim3 thread, block;
};
const Where& here();        // of the running fibre
const dim3& block_shape();  // threads in a block
const dim3& grid_shape();   // blocks in the grid

// Waits for all threads of the block, or of the warp, that have not ended.
void block_barrier();
void warp_barrier(unsigned lanes);
// Returns the value that lane `from` of the warp passed to the same call, which all lanes make.
uint64_t exchange(unsigned lanes, uint64_t bits, int from);
uint64_t exchange_xor(unsigned lanes, uint64_t bits, int mask);
uint64_t exchange_down(unsigned lanes, uint64_t bits, int delta);
uint64_t exchange_up(unsigned lanes, uint64_t bits, int delta);
unsigned ballot(unsigned lanes, bool vote);

// Records which threads read and wrote an element of shared memory, and between which barriers.
class Access {
 public:
  void read(const char* what);
  void write(const char* what);

 private:
  uint64_t block_ = 0;                          // the block that wrote it, as a number of the run; 0: none
  int64_t written_ = -1, read_ = -1;            // number of block barriers before the access
  int64_t written_warp_ = -1, read_warp_ = -1;  // number of warp barriers before it
  int writer_ = -1, reader_ = -1;               // numbers of the threads, or kSeveral
  int reader_warp_ = -1;
};

template <typename T>
struct Cell {
  T value{};
  Access access;
};

template <typename T>
class CellRef {
 public:
  explicit CellRef(Cell<T>& cell) : cell_(cell) {}
  operator T() const {  // NOLINT: reads like a variable
    cell_.access.read("shared memory");
    return cell_.value;
  }
  CellRef& operator=(T value) {
    cell_.access.write("shared memory");
    cell_.value = value;
    return *this;
  }
  CellRef& operator=(const CellRef& other) { return *this = static_cast<T>(other); }
  CellRef& operator+=(T value) { return *this = static_cast<T>(*this) + value; }
  CellRef& operator*=(T value) { return *this = static_cast<T>(*this) * value; }

 private:
  Cell<T>& cell_;
};

std::vector<Cell<float>>& dynamic_cells();

// Runs the body once for every thread of the grid. Throws the first error of a thread or of the rules above.
void run_grid(const dim3& blocks, const dim3& threads, size_t shared_floats, const std::function<void()>& body);
// Queues work on the simulated GPU of the context.
void queue(Context&, std::function<void()>);
// Throws an error unless the pointer is null or in the device's memory.
void check_pointer(Context&, const void*);

}  // namespace coca::gpu

#define threadIdx (::coca::gpu::here().thread)
#define blockIdx (::coca::gpu::here().block)
#define blockDim (::coca::gpu::block_shape())
#define gridDim (::coca::gpu::grid_shape())

inline void __syncthreads() { coca::gpu::block_barrier(); }
inline void __syncwarp(unsigned lanes = 0xffffffffu) { coca::gpu::warp_barrier(lanes); }

namespace coca::gpu {
template <typename T>
uint64_t to_bits(T x) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  if constexpr (sizeof(T) == 4)
    return std::bit_cast<uint32_t>(x);
  else
    return std::bit_cast<uint64_t>(x);
}
template <typename T>
T from_bits(uint64_t bits) {
  if constexpr (sizeof(T) == 4)
    return std::bit_cast<T>(static_cast<uint32_t>(bits));
  else
    return std::bit_cast<T>(bits);
}
}  // namespace coca::gpu

template <typename T>
T __shfl_sync(unsigned lanes, T x, int from) {
  return coca::gpu::from_bits<T>(coca::gpu::exchange(lanes, coca::gpu::to_bits(x), from));
}
template <typename T>
T __shfl_xor_sync(unsigned lanes, T x, int mask) {
  return coca::gpu::from_bits<T>(coca::gpu::exchange_xor(lanes, coca::gpu::to_bits(x), mask));
}
template <typename T>
T __shfl_down_sync(unsigned lanes, T x, int delta) {
  return coca::gpu::from_bits<T>(coca::gpu::exchange_down(lanes, coca::gpu::to_bits(x), delta));
}
template <typename T>
T __shfl_up_sync(unsigned lanes, T x, int delta) {
  return coca::gpu::from_bits<T>(coca::gpu::exchange_up(lanes, coca::gpu::to_bits(x), delta));
}
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline unsigned __ballot_sync(unsigned lanes, bool vote) { return coca::gpu::ballot(lanes, vote); }
inline bool __any_sync(unsigned lanes, bool vote) { return coca::gpu::ballot(lanes, vote) != 0; }

template <typename T>
T atomicAdd(T* p, T x) {
  return std::atomic_ref<T>(*p).fetch_add(x);
}
template <typename T>
T atomicMin(T* p, T x) {
  const T old = *p;
  if (x < old) *p = x;
  return old;
}
template <typename T>
T atomicMax(T* p, T x) {
  const T old = *p;
  if (x > old) *p = x;
  return old;
}

namespace coca::cuda {

template <typename T, int n>
class Shared {
 public:
  gpu::CellRef<T> operator[](int64_t i) {
    COCA_CHECK(i >= 0 && i < n, "shared memory: place {} of {}", i, n);
    return gpu::CellRef<T>(cells_[static_cast<size_t>(i)]);
  }

 private:
  gpu::Cell<T> cells_[n];
};

class DynamicShared {
 public:
  gpu::CellRef<float> operator[](int64_t i) const {
    std::vector<gpu::Cell<float>>& cells = gpu::dynamic_cells();
    COCA_CHECK(i >= 0 && i < static_cast<int64_t>(cells.size()), "dynamic shared memory: place {} of {}", i,
               cells.size());
    return gpu::CellRef<float>(cells[static_cast<size_t>(i)]);
  }
};

struct Grid {
  dim3 blocks, threads;
  size_t shared_floats = 0;
};

template <typename... Parameters, typename... Args>
void launch(Context& context, const Grid& grid, void (*kernel)(Parameters...), const Args&... args) {
  [[maybe_unused]] const auto check_argument = [&]<typename T>(const T& x) {
    if constexpr (std::is_pointer_v<T>) gpu::check_pointer(context, x);
  };
  (check_argument(args), ...);
  gpu::queue(context, [grid, kernel, ... values = static_cast<Parameters>(args)] {
    gpu::run_grid(grid.blocks, grid.threads, grid.shared_floats, [&] { kernel(values...); });
  });
}

}  // namespace coca::cuda

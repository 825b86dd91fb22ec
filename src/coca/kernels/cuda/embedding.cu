// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/embedding.h"

#include "coca/base/error.h"
#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cuda/head_parts.h"
#include "coca/kernels/cuda/rows.h"

namespace coca::cuda {

namespace {

// left = M - m for the first invalid id m; it stays 0 if all ids are valid.
__global__ void first_bad_kernel(const int32_t* ids, int64_t M, int64_t V, int* left) {
  for (int64_t m = grid_start(); m < M; m += grid_stride())
    if (ids[m] < 0 || ids[m] >= V) {
      atomicMax(left, static_cast<int>(M - m));
      return;  // later ids of this thread come after it
    }
}

// Waits for the device, because an error must name the first invalid id, and invalid ids must not be used.
void check_ids(Context& cx, TensorRef ids, int64_t V) {
  const int64_t M = ids.size(0);
  const auto* there = ids.as<int32_t>();
  auto* left_there = cx.scratch_tensor({1}, DType::kI32).as<int32_t>();
  cx.memory()->zero(left_there, sizeof(int32_t));
  launch(cx, {.blocks = blocks_for(M), .threads = kThreads}, first_bad_kernel, there, M, V, left_there);
  int32_t left = 0, id = 0;
  cx.memory()->download(&left, left_there, sizeof(left));
  cx.memory()->synchronize();
  if (left == 0) return;
  cx.memory()->download(&id, there + (M - left), sizeof(id));
  cx.memory()->synchronize();
  fail(ErrorKind::kInvalidArgument, "[embedding] ids[{}] = {} is not in 0..{}", M - left, id, V - 1);
}

template <typename T, int V>
struct LookUp {
  const int32_t* ids;
  const T* table;
  float* y;
  int64_t C;
  __device__ void operator()(const Place& p) const {
    const int64_t c = p.part * V;
    store_part<V>(y + p.n * C + c, load_part<V>(table + ids[p.n] * C + c));
  }
};

void forward(Context& cx, const ops::EmbeddingForward& a) {
  const int64_t M = a.ids.size(0), C = a.table.size(1);
  if (M == 0) return;
  if (a.check == ops::IdCheck::kHere) check_ids(cx, a.ids, a.table.size(0));
  ops::with_float_type(a.table.dtype, [&]<typename T>(T) {
    with_parts({C}, {a.table, a.y}, [&]<int V>(std::integral_constant<int, V>) {
      each_part(cx, {1, M, 1, C / V}, LookUp<T, V>{a.ids.as<int32_t>(), a.table.as<T>(), a.y.as<float>(), C});
    });
  });
}

// Number of ids that a block searches between two barriers. Each has one bit, in order.
constexpr int kRounds = 4, kLook = kRounds * kThreads, kWords = kLook / kWarp;
using Found = Shared<unsigned, 2 * kWords>;  // two halves, used alternately

// Finds which of ids[begin .. end), at most kLook, equal `id`. All threads of the block take part. Bit i of word `half
// * kWords + w` is for begin + 32 w + i.
__device__ void find(const int32_t* ids, int64_t begin, int64_t end, int32_t id, int half, Found& found) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int round = 0; round < kRounds; ++round) {
    const int at = round * kThreads + thread;
    const unsigned votes = __ballot_sync(kAllLanes, begin + at < end && ids[begin + at] == id);
    if (thread % kWarp == 0) found[half * kWords + at / kWarp] = votes;
  }
  __syncthreads();
}

// Adds column c of the rows begin + i of dy to sum, for all set bits i of the word in order, with four loads at a time.
template <int V>
__device__ void add_rows(unsigned word, const float* dy, int64_t C, Floats<V>& sum) {
  constexpr int kLoads = 4;
  while (word != 0) {
    Floats<V> rows[kLoads];
    bool there[kLoads];
    for (int k = 0; k < kLoads; ++k) {
      there[k] = word != 0;
      if (there[k]) rows[k] = load_part<V>(dy + (__ffs(static_cast<int>(word)) - 1) * C);
      word &= word - 1;
    }
    for (int k = 0; k < kLoads; ++k)
      for (int i = 0; i < V && there[k]; ++i) sum.x[i] += rows[k].x[i];
  }
}

// Block (m, s): if row m is the first with its id, adds all rows with this id in order, for the columns of slab s. Rows
// are thus added in order, and no two blocks add to the same number. The search compares at most M^2 ids, which are in
// the cache; most rows find an earlier one quickly.
template <int V>
__global__ void embedding_backward_kernel(const int32_t* ids, const float* dy, float* dtable, int64_t M, int64_t C) {
  __shared__ Found found;
  const int64_t m = blockIdx.x, c = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * V;
  const int32_t id = ids[m];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  int half = 0;
  for (int64_t end = m; end > 0; end -= kLook, half = 1 - half) {
    find(ids, end > kLook ? end - kLook : 0, end, id, half, found);
    static_assert(kWords == kWarp);
    const unsigned word = found[half * kWords + lane];
    if (__any_sync(kAllLanes, word != 0)) return;
  }
  Floats<V> sum{};
  if (c < C) sum = load_part<V>(dtable + id * C + c);
  for (int64_t begin = m; begin < M; begin += kLook, half = 1 - half) {
    find(ids, begin, M, id, half, found);
    for (int w = 0; w < kWords && c < C; ++w)
      add_rows<V>(found[half * kWords + w], dy + (begin + kWarp * w) * C + c, C, sum);
  }
  if (c < C) store_part<V>(dtable + id * C + c, sum);
}

void backward(Context& cx, const ops::EmbeddingBackward& a) {
  const int64_t M = a.ids.size(0), C = a.dtable.size(1);
  if (M == 0 || C == 0) return;
  if (a.check == ops::IdCheck::kHere) check_ids(cx, a.ids, a.dtable.size(0));
  with_parts({C}, {a.dy, a.dtable}, [&]<int V>(std::integral_constant<int, V>) {
    const int64_t slabs = (C / V + kThreads - 1) / kThreads;
    launch(cx, {.blocks = {static_cast<unsigned>(M), static_cast<unsigned>(slabs)}, .threads = kThreads},
           embedding_backward_kernel<V>, a.ids.as<int32_t>(), a.dy.as<float>(), a.dtable.as<float>(), M, C);
  });
}

}  // namespace

const ops::EmbeddingImpl embedding_row{.name = "cuda", .device = DeviceKind::kCuda, .run = {forward, backward}};

}  // namespace coca::cuda

// One block per row of V logits. It reads the row once for the maximum and the sum of exponentials, and once more for
// the gradient.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/cross_entropy.h"

#include <cmath>

#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cuda/rows.h"
#include "coca/kernels/cuda/simt.h"

namespace coca::cuda {

namespace {

// log sum exp of a row, returned in all threads.
__device__ inline float log_sum_exp(const float* x, int64_t V, BlockWork<float>& work_max, BlockWork<float>& work_sum) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp,
            warps = static_cast<int>(blockDim.x) / kWarp;
  float max = -INFINITY, sum = 0.0f;  // of this thread's logits
  for (int64_t v = threadIdx.x; v < V; v += blockDim.x) {
    const float logit = x[v];
    if (logit > max || !(logit == logit)) {
      sum = sum * expf(max - logit) + 1.0f;
      max = logit;
    } else {
      sum += expf(logit - max);
    }
  }
  float all = warp_max(max);
  if (lane == 0) work_max[warp] = all;
  __syncthreads();
  all = warp_max(lane < warps ? static_cast<float>(work_max[lane]) : -INFINITY);
  return all + logf(block_sum(max == -INFINITY ? 0.0f : sum * expf(max - all), work_sum));
}

struct Rows {
  const int32_t* targets;
  int64_t V;
  float scale;
};

// The loss for a target; NaN for a target outside the vocabulary.
__device__ inline float loss_of(int32_t target, int64_t V, float lse, const float* x) {
  if (target == ops::kIgnoreTarget) return 0.0f;
  return target >= 0 && target < V ? lse - x[target] : NAN;
}

__global__ void forward_kernel(Rows a, const float* logits, float* nll, float* lse) {
  __shared__ BlockWork<float> work_max, work_sum;
  const int64_t m = blockIdx.x;
  const float* x = logits + m * a.V;
  const float sum = log_sum_exp(x, a.V, work_max, work_sum);
  if (threadIdx.x > 0) return;
  nll[m] = loss_of(a.targets[m], a.V, sum, x);
  if (lse) lse[m] = sum;
}

// dx = scale (softmax - one at the target); dx may be x.
template <typename T>
__device__ void gradient_row(const Rows& a, int64_t m, const float* x, float lse, T* dx) {
  const int32_t target = a.targets[m];
  for (int64_t v = threadIdx.x; v < a.V; v += blockDim.x) {
    const float p = expf(x[v] - lse);
    store(dx + v, target == ops::kIgnoreTarget ? 0.0f : a.scale * (v == target ? p - 1.0f : p));
  }
}

__global__ void backward_kernel(Rows a, const float* logits, const float* lse, float* dlogits) {
  const int64_t m = blockIdx.x;
  gradient_row(a, m, logits + m * a.V, lse[m], dlogits + m * a.V);
}

template <typename T>
__global__ void fused_kernel(Rows a, const float* logits, float* nll, T* dlogits) {
  __shared__ BlockWork<float> work_max, work_sum;
  const int64_t m = blockIdx.x;
  const float* x = logits + m * a.V;
  const float lse = log_sum_exp(x, a.V, work_max, work_sum);
  if (threadIdx.x == 0) nll[m] = loss_of(a.targets[m], a.V, lse, x);
  __syncthreads();  // the target's logit may be overwritten from here on
  gradient_row(a, m, x, lse, dlogits + m * a.V);
}

Grid grid_of(TensorRef logits) { return {.blocks = static_cast<unsigned>(logits.size(0)), .threads = kThreads}; }

void forward(Context& cx, const ops::CrossEntropyForward& a) {
  if (a.logits.size(0) == 0) return;
  launch(cx, grid_of(a.logits), forward_kernel, Rows{a.targets.as<int32_t>(), a.logits.size(1), 1.0f},
         a.logits.as<float>(), a.nll.as<float>(), a.lse.empty() ? nullptr : a.lse.as<float>());
}

void backward(Context& cx, const ops::CrossEntropyBackward& a) {
  if (a.logits.size(0) == 0) return;
  launch(cx, grid_of(a.logits), backward_kernel, Rows{a.targets.as<int32_t>(), a.logits.size(1), a.scale},
         a.logits.as<float>(), a.lse.as<float>(), a.dlogits.as<float>());
}

void fused(Context& cx, const ops::CrossEntropyFused& a) {
  if (a.logits.size(0) == 0) return;
  ops::with_float_type(a.dlogits.dtype, [&]<typename T>(T) {
    launch(cx, grid_of(a.logits), fused_kernel<T>, Rows{a.targets.as<int32_t>(), a.logits.size(1), a.scale},
           a.logits.as<float>(), a.nll.as<float>(), a.dlogits.as<T>());
  });
}

}  // namespace

const ops::CrossEntropyImpl cross_entropy_row{
    .name = "cuda", .device = DeviceKind::kCuda, .run = {forward, backward, fused}};

}  // namespace coca::cuda

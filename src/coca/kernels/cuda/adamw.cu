// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/adamw_factors.h"

#include <numeric>
#include <vector>

#include "coca/kernels/cuda/rows.h"
#include "coca/kernels/cuda/simt.h"

namespace coca::cuda {

namespace {

__global__ void adamw_kernel(ops::AdamWFactors f, const float* grad, float* param, float* m, float* v, BF16* copy,
                             int64_t n) {
  for (int64_t i = grid_start(); i < n; i += grid_stride()) {
    const float g = grad[i] * f.grad_scale;
    const float mi = f.beta1 * m[i] + f.one_minus_beta1 * g, vi = f.beta2 * v[i] + f.one_minus_beta2 * g * g;
    const float p = f.decay * param[i] - f.step_size * mi / (sqrtf(vi) * f.root_scale + f.eps);
    m[i] = mi;
    v[i] = vi;
    param[i] = p;
    if (copy) store(copy + i, p);
  }
}

// out[block] = sum of the squares of `tile` elements.
__global__ void squares_kernel(const float* x, int64_t n, int64_t tile, double* out) {
  __shared__ BlockWork<double> work;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * tile, end = first + tile < n ? first + tile : n;
  double sum = 0.0;
  for (int64_t i = first + threadIdx.x; i < end; i += blockDim.x) {
    const double xi = x[i];
    sum += xi * xi;
  }
  sum = block_sum(sum, work);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// Waits for the device.
void sums_of_tiles(Context& cx, TensorRef x, int64_t tile, std::span<double> out) {
  if (out.empty()) return;
  auto* sums = static_cast<double*>(cx.scratch(out.size_bytes()));
  launch(cx, {.blocks = static_cast<unsigned>(out.size()), .threads = kThreads}, squares_kernel, x.as<float>(),
         x.numel(), tile, sums);
  cx.memory()->download(out.data(), sums, out.size_bytes());
  cx.memory()->synchronize();
}

void step(Context& cx, const ops::AdamWStep& a) {
  const int64_t n = a.grad.numel();
  launch(cx, {.blocks = blocks_for(n), .threads = kThreads}, adamw_kernel, ops::adamw_factors(a), a.grad.as<float>(),
         a.param.as<float>(), a.m.as<float>(), a.v.as<float>(), a.copy.empty() ? nullptr : a.copy.as<BF16>(), n);
}

double sum_of_squares(Context& cx, TensorRef x) {
  constexpr int64_t kTile = 65536;
  std::vector<double> sums(static_cast<size_t>((x.numel() + kTile - 1) / kTile));
  sums_of_tiles(cx, x, kTile, sums);
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

}  // namespace

const ops::AdamWImpl adamw_row{
    .name = "cuda", .device = DeviceKind::kCuda, .run = {step, sum_of_squares, sums_of_tiles}};

}  // namespace coca::cuda

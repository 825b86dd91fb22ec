// Forward, one block per row of C numbers. Backward, a block processes several rows one after another, and each thread
// keeps the sums over rows for its own columns.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cuda/rows.h"
#include "coca/kernels/cuda/simt.h"

namespace coca::cuda {

namespace {

template <typename X, typename Y>
struct NormRow {
  const X* x;  // [M, C]
  const float *w, *b;
  Y* y;
  float* stat;
  int64_t C;
  float eps;
  bool layer;
};

template <typename X, typename Y>
__global__ void norm_forward_kernel(NormRow<X, Y> a) {
  __shared__ BlockWork<float> work_mean, work_square;
  const int64_t m = blockIdx.x;
  const X* x = a.x + m * a.C;
  const float inv_C = 1.0f / static_cast<float>(a.C);
  float mean = 0.0f;
  if (a.layer) {
    float sum = 0.0f;
    for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x) sum += load(x + c);
    mean = inv_C * block_sum(sum, work_mean);
  }
  float squares = 0.0f;
  for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x) {
    const float centred = load(x + c) - mean;
    squares += centred * centred;
  }
  const float r = 1.0f / sqrtf(inv_C * block_sum(squares, work_square) + a.eps);
  for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x)
    store(a.y + m * a.C + c, (load(x + c) - mean) * r * a.w[c] + (a.b ? a.b[c] : 0.0f));
  if (a.stat && threadIdx.x == 0) {
    a.stat[2 * m] = mean;
    a.stat[2 * m + 1] = r;
  }
}

template <typename X, typename DY, typename DX>
struct NormRowsBack {
  const X* x;  // [M, C]
  const float *w, *stat;
  const DY* dy;
  DX* dx;
  float* partial;  // [blocks, 2, C], for dw and db; null if neither is needed
  int64_t M, C, rows;
  bool layer, accumulate;
};

// y = xhat w + b with xhat = (x - mean) r. dx += r (g - mean(g) - xhat mean(g xhat)) with g = dy w; RMSNorm has no
// mean(g).
template <typename X, typename DY, typename DX>
__global__ void norm_backward_kernel(NormRowsBack<X, DY, DX> a) {
  __shared__ BlockWork<float> work_g, work_gx;
  const float inv_C = 1.0f / static_cast<float>(a.C);
  float* sums = a.partial + (a.partial ? static_cast<int64_t>(blockIdx.x) * 2 * a.C : 0);
  for (int64_t c = threadIdx.x; a.partial && c < a.C; c += blockDim.x) sums[c] = sums[a.C + c] = 0.0f;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * a.rows, end = first + a.rows < a.M ? first + a.rows : a.M;
  for (int64_t m = first; m < end; ++m) {
    const X* x = a.x + m * a.C;
    const DY* dy = a.dy + m * a.C;
    DX* dx = a.dx + m * a.C;
    const float mean = a.stat[2 * m], r = a.stat[2 * m + 1];
    float sum_g = 0.0f, sum_gx = 0.0f;
    for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x) {
      const float xhat = (load(x + c) - mean) * r, d = load(dy + c), g = d * a.w[c];
      sum_g += g;
      sum_gx += g * xhat;
      if (!a.partial) continue;
      sums[c] += d * xhat;
      sums[a.C + c] += d;
    }
    const float mean_g = a.layer ? inv_C * block_sum(sum_g, work_g) : 0.0f,
                mean_gx = inv_C * block_sum(sum_gx, work_gx);
    for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x) {
      const float xhat = (load(x + c) - mean) * r, g = load(dy + c) * a.w[c];
      store(dx + c, (a.accumulate ? load(dx + c) : 0.0f) + r * (g - mean_g - xhat * mean_gx));
    }
    __syncthreads();  // the next row's sums reuse `work`
  }
}

// dw += the partial sums of all blocks, in order; likewise db.
__global__ void norm_parameters_kernel(const float* partial, int64_t blocks, int64_t C, float* dw, float* db) {
  for (int64_t c = grid_start(); c < C; c += grid_stride()) {
    float w = 0.0f, b = 0.0f;
    for (int64_t i = 0; i < blocks; ++i) {
      w += partial[i * 2 * C + c];
      b += partial[(i * 2 + 1) * C + c];
    }
    if (dw) dw[c] += w;
    if (db) db[c] += b;
  }
}

template <typename X, typename Y>
void forward_as(Context& cx, const ops::NormForward& a) {
  const int64_t M = a.x.size(0);
  if (M == 0) return;
  const NormRow<X, Y> rows{.x = a.x.as<X>(),
                           .w = a.w.as<float>(),
                           .b = a.b.empty() ? nullptr : a.b.as<float>(),
                           .y = a.y.as<Y>(),
                           .stat = a.stat.empty() ? nullptr : a.stat.as<float>(),
                           .C = a.x.size(1),
                           .eps = a.eps,
                           .layer = a.kind == ops::NormKind::kLayerNorm};
  launch(cx, {.blocks = static_cast<unsigned>(M), .threads = kThreads}, norm_forward_kernel<X, Y>, rows);
}

template <typename X, typename DY, typename DX>
void backward_as(Context& cx, const ops::NormBackward& a) {
  const int64_t M = a.x.size(0), C = a.x.size(1);
  if (M == 0) return;
  // Enough blocks for every multiprocessor, but few enough partial sums.
  const int64_t rows = std::max<int64_t>(8, (M + 511) / 512), blocks = (M + rows - 1) / rows;
  const bool parameters = !a.dw.empty() || !a.db.empty();
  float* partial = parameters ? cx.scratch_tensor({blocks, 2, C}).as<float>() : nullptr;
  const NormRowsBack<X, DY, DX> back{.x = a.x.as<X>(),
                                     .w = a.w.as<float>(),
                                     .stat = a.stat.as<float>(),
                                     .dy = a.dy.as<DY>(),
                                     .dx = a.dx.as<DX>(),
                                     .partial = partial,
                                     .M = M,
                                     .C = C,
                                     .rows = rows,
                                     .layer = a.kind == ops::NormKind::kLayerNorm,
                                     .accumulate = a.dx_write == ops::Write::kAccumulate};
  launch(cx, {.blocks = static_cast<unsigned>(blocks), .threads = kThreads}, norm_backward_kernel<X, DY, DX>, back);
  if (!parameters) return;
  launch(cx, {.blocks = blocks_for(C), .threads = kThreads}, norm_parameters_kernel, partial, blocks, C,
         a.dw.empty() ? nullptr : a.dw.as<float>(), a.db.empty() ? nullptr : a.db.as<float>());
}

void forward(Context& cx, const ops::NormForward& a) {
  if (a.x.dtype == DType::kBF16) return forward_as<BF16, BF16>(cx, a);
  ops::with_float_type(a.y.dtype, [&]<typename Y>(Y) { forward_as<float, Y>(cx, a); });
}

void backward(Context& cx, const ops::NormBackward& a) {
  if (a.x.dtype == DType::kBF16) return backward_as<BF16, BF16, BF16>(cx, a);
  ops::with_float_type(a.dy.dtype, [&]<typename DY>(DY) { backward_as<float, DY, float>(cx, a); });
}

}  // namespace

const ops::NormImpl norm_row{.name = "cuda", .device = DeviceKind::kCuda, .run = {forward, backward}};

}  // namespace coca::cuda

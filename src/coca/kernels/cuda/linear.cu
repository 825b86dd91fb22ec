// Linear: three matrix products (matmul.h), biases and their gradients.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/linear.h"

#include <algorithm>

#include "coca/kernels/args/float_types.h"
#include "coca/kernels/args/leading.h"
#include "coca/kernels/cuda/matmul.h"
#include "coca/kernels/cuda/rows.h"
#include "coca/kernels/cuda/simt.h"

namespace coca::cuda {

namespace {

__global__ void add_bias_kernel(const float* b, float* y, int64_t M, int64_t N, int64_t ld) {
  for (int64_t i = grid_start(); i < M * N; i += grid_stride()) y[i / N * ld + i % N] += b[i % N];
}

// y = x + b, or y += x + b, rounded once; x [M, N] is packed.
template <typename T>
__global__ void round_kernel(const float* x, const float* b, T* y, int64_t M, int64_t N, int64_t ld, bool add) {
  for (int64_t i = grid_start(); i < M * N; i += grid_stride()) {
    T* at = y + i / N * ld + i % N;
    store(at, (add ? load(at) : 0.0f) + x[i] + (b ? b[i % N] : 0.0f));
  }
}

// Column sums. A block processes 32 columns of some rows, and each warp every eighth of these rows. Then the sums of
// the blocks are added in order.
constexpr int kColumns = 32, kWarps = 8;
template <typename T>
__global__ void column_sums_kernel(const T* x, int64_t M, int64_t N, int64_t ld, int64_t rows, float* partial) {
  __shared__ Shared<float, kColumns * kWarps> sums;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kColumns + lane, first = blockIdx.y * rows;
  const int64_t end = first + rows < M ? first + rows : M;
  float sum = 0.0f;
  for (int64_t m = first + warp; column < N && m < end; m += kWarps) sum += load(x + m * ld + column);
  sums[warp * kColumns + lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= N) return;
  float all = 0.0f;
  for (int w = 0; w < kWarps; ++w) all += sums[w * kColumns + lane];
  partial[blockIdx.y * N + column] = all;
}
__global__ void add_partial_sums_kernel(const float* partial, int64_t blocks, int64_t N, float* out) {
  for (int64_t n = grid_start(); n < N; n += grid_stride()) {
    float sum = 0.0f;
    for (int64_t b = 0; b < blocks; ++b) sum += partial[b * N + n];
    out[n] += sum;
  }
}

constexpr int64_t kExactNumbers = int64_t{1} << 24;  // numbers of c kept in fp32 at a time

// A bf16 result is rounded once. With a bias, or with fp32 operands, it is computed in fp32 first, some rows at a time.
// (cuBLASLt's own epilogue would round the bias to bf16.)
void rounded_product(Context& cx, const Matmul& p, const float* bias) {
  const int64_t M = p.c.size(0), N = p.c.size(1), most = std::clamp<int64_t>(kExactNumbers / N, 1, M);
  const MutTensorRef exact = cx.scratch_tensor({most, N}, DType::kF32, ScratchUser::kProduct);
  for (int64_t m = 0; m < M; m += most) {
    const int64_t rows = std::min(most, M - m);
    const MutTensorRef sums = exact.narrow(0, 0, rows), c = p.c.narrow(0, m, rows);
    Matmul part = p;
    part.a = p.a.narrow(p.turn_a == Turn::kYes ? 1 : 0, m, rows);
    part.c = sums;
    part.write = ops::Write::kAssign;
    matmul(cx, part);
    launch(cx, {.blocks = blocks_for(rows * N), .threads = kThreads}, round_kernel<BF16>, sums.as<float>(), bias,
           c.as<BF16>(), rows, N, ops::leading(c), p.write == ops::Write::kAccumulate);
  }
}

void product(Context& cx, const Matmul& p, TensorRef bias) {
  const int64_t M = p.c.size(0), N = p.c.size(1);
  if (M == 0 || N == 0) return;
  const float* b = bias.empty() ? nullptr : bias.as<float>();
  if (p.c.dtype == DType::kBF16 && (b != nullptr || p.a.dtype == DType::kF32)) return rounded_product(cx, p, b);
  matmul(cx, p);
  if (b == nullptr) return;
  launch(cx, {.blocks = blocks_for(M * N), .threads = kThreads}, add_bias_kernel, b, p.c.as<float>(), M, N,
         ops::leading(p.c));
}

void bias_gradient(Context& cx, TensorRef dy, MutTensorRef db) {
  const int64_t M = dy.size(0), N = dy.size(1), rows = std::max<int64_t>(64, (M + 255) / 256),
                blocks = (M + rows - 1) / rows;
  float* partial = cx.scratch_tensor({blocks, N}).as<float>();
  const dim3 grid(static_cast<unsigned>((N + kColumns - 1) / kColumns), static_cast<unsigned>(blocks));
  ops::with_float_type(dy.dtype, [&]<typename T>(T) {
    launch(cx, {.blocks = grid, .threads = kWarp * kWarps}, column_sums_kernel<T>, dy.as<T>(), M, N, ops::leading(dy),
           rows, partial);
  });
  launch(cx, {.blocks = blocks_for(N), .threads = kThreads}, add_partial_sums_kernel, partial, blocks, N,
         db.as<float>());
}

void forward(Context& cx, const ops::LinearForward& a) {
  product(cx, {.a = a.x, .turn_a = Turn::kNo, .b = a.w, .turn_b = Turn::kYes, .c = a.y, .write = a.y_write}, a.b);
}

void backward(Context& cx, const ops::LinearBackward& a) {
  if (a.x.size(0) == 0) return;
  if (!a.dx.empty())
    product(cx, {.a = a.dy, .turn_a = Turn::kNo, .b = a.w, .turn_b = Turn::kNo, .c = a.dx, .write = a.dx_write}, {});
  if (!a.dw.empty())
    product(
        cx,
        {.a = a.dy, .turn_a = Turn::kYes, .b = a.x, .turn_b = Turn::kNo, .c = a.dw, .write = ops::Write::kAccumulate},
        {});
  if (!a.db.empty()) bias_gradient(cx, a.dy, a.db);
}

}  // namespace

const ops::LinearImpl linear_row{.name = "cuda", .device = DeviceKind::kCuda, .run = {forward, backward}};

}  // namespace coca::cuda

// Products are cut into tiles of the output by shape alone, one oneDNN call on one thread each: their bits do
// not depend on the number of threads. A whole oneDNN product may split its sums between threads.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/linear.h"

#include <algorithm>
#include <atomic>

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/linear.h"
#include "coca/kernels/onednn/gemm.h"
#include "coca/kernels/ref/linear.h"
#include "coca/ops/check.h"
#include "coca/ops/impl.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "linear";

struct Tiles {
  int64_t rows, cols;
};

// Tiles of at most 512 x 512, halved while there are fewer than 16 of them and an edge above 64.
Tiles choose_tiles(int64_t m, int64_t n) {
  Tiles t{std::min<int64_t>(m, 512), std::min<int64_t>(n, 512)};
  const auto count = [&] { return ((m + t.rows - 1) / t.rows) * ((n + t.cols - 1) / t.cols); };
  while (count() < 16 && std::max(t.rows, t.cols) > 64) {
    int64_t& edge = t.rows >= t.cols ? t.rows : t.cols;
    edge = std::max<int64_t>(64, (edge / 2 + 15) / 16 * 16);
  }
  return t;
}

// C = op(A) op(B) + beta C by tiles; then b (when not null) is added to every row.
void product(const onednn::Gemm& whole, const float* b) {
  if (whole.m == 0 || whole.n == 0) return;
  const Tiles tile = choose_tiles(whole.m, whole.n);
  const int64_t across = (whole.n + tile.cols - 1) / tile.cols, down = (whole.m + tile.rows - 1) / tile.rows;
  std::atomic<bool> ok{true};
  const auto run_tile = [&](int64_t task) {
    if (task >= across * down) return;
    const int64_t row = task / across * tile.rows, col = task % across * tile.cols;
    onednn::Gemm g = whole;
    g.m = std::min(tile.rows, whole.m - row);
    g.n = std::min(tile.cols, whole.n - col);
    g.a += whole.trans_a == onednn::Trans::kNo ? row * whole.lda : row;
    g.b += whole.trans_b == onednn::Trans::kNo ? col : col * whole.ldb;
    g.c += row * whole.ldc + col;
    if (!onednn::gemm_f32(g)) ok = false;
    if (b) cpu::add_bias_rows(b + col, g.c, g.ldc, g.m, g.n);
  };
  // Never fewer than two tasks: inside a parallel region oneDNN keeps to one thread.
  parallel_for(std::max<int64_t>(2, across * down), run_tile);
  COCA_CHECK_AS(kInternal, ok.load(), "[{}] oneDNN refused a product of {} x {} x {}", kOp, whole.m, whole.n,
                whole.k);
}

// fp32 [rows, cols] with an innermost stride of 1 and rows that do not overlap.
void check_matrix(std::string_view name, TensorRef t) {
  check_rank2(kOp, name, t);
  check_dtype(kOp, name, t, DType::kF32);
  COCA_CHECK((t.size(1) <= 1 || t.stride(1) == 1) && (t.size(0) <= 1 || t.stride(0) >= t.size(1)),
             "[{}] {} {} has strides {}; rows must not overlap and their elements must be adjacent", kOp,
             name, t.shape.text(), t.strides.text());
}

void check_extent(std::string_view a, TensorRef ta, std::string_view b, TensorRef tb, char letter, int dim_a,
                  int dim_b) {
  COCA_CHECK(ta.size(dim_a) == tb.size(dim_b), "[{}] {} {} and {} {}: {} differs ({} and {})", kOp, a,
             ta.shape.text(), b, tb.shape.text(), letter, ta.size(dim_a), tb.size(dim_b));
}

void check_vector(std::string_view name, TensorRef t, int64_t N) {
  check_packed(kOp, name, t, {N});
}

int64_t leading(TensorRef t) {
  return t.size(0) <= 1 ? std::max<int64_t>(1, t.size(1)) : t.stride(0);
}

template <typename Ref>
void clear_rows(const Ref& t) {
  for (int64_t m = 0; m < t.size(0); ++m)
    std::fill_n(t.template as<float>() + m * t.stride(0), t.size(1), 0.0f);
}

// db[n] += sum of dy[:, n]: partial sums of fixed blocks of rows, added in order.
void bias_gradient(Context& context, TensorRef dy, MutTensorRef db) {
  const int64_t M = dy.size(0), N = dy.size(1), block_rows = reduction_rows(M), ld = leading(dy);
  const int64_t blocks = (M + block_rows - 1) / block_rows;
  const float* from = dy.as<float>();
  float* partial = context.scratch_tensor({std::max<int64_t>(1, blocks), N}).as<float>();
  parallel_blocks(M, block_rows, [&](int64_t m0, int64_t m1) {
    float* sums = partial + m0 / block_rows * N;
    std::fill_n(sums, N, 0.0f);
    cpu::add_column_sums(from + m0 * ld, ld, m1 - m0, N, sums);
  });
  float* to = db.as<float>();
  parallel_blocks(N, 4096, [&](int64_t n0, int64_t n1) {
    cpu::add_column_sums(partial + n0, N, blocks, n1 - n0, to + n0);
  });
}

void forward_ref(const LinearForward& a) {
  if (a.y_write == Write::kAssign) clear_rows(a.y);
  ref::linear_forward<float>(a.x.view<float, 2>(), a.w.view<float, 2>(), a.b.view<float, 1>(),
                             a.y.view<float, 2>());
}

void backward_ref(const LinearBackward& a) {
  const auto dy = a.dy.view<float, 2>();
  if (!a.dx.empty()) {
    if (a.dx_write == Write::kAssign) clear_rows(a.dx);
    ref::linear_backward_x<float>(a.w.view<float, 2>(), dy, a.dx.view<float, 2>());
  }
  if (!a.dw.empty()) ref::linear_backward_w<float>(a.x.view<float, 2>(), dy, a.dw.view<float, 2>());
  if (!a.db.empty()) ref::linear_backward_b<float>(dy, a.db.view<float, 1>());
}

}  // namespace

void linear_forward(Context& context, const LinearForward& a) {
  check_matrix("x", a.x);
  check_matrix("w", a.w);
  check_matrix("y", a.y);
  check_extent("x", a.x, "w", a.w, 'K', 1, 1);
  check_extent("x", a.x, "y", a.y, 'M', 0, 0);
  check_extent("w", a.w, "y", a.y, 'N', 0, 1);
  if (!a.b.empty()) check_vector("b", a.b, a.w.size(0));
  if (use_ref(context, kOp, "onednn")) return forward_ref(a);
  product({.trans_b = onednn::Trans::kYes,
           .m = a.x.size(0),
           .n = a.w.size(0),
           .k = a.x.size(1),
           .beta = a.y_write == Write::kAccumulate ? 1.0f : 0.0f,
           .a = a.x.as<float>(),
           .lda = leading(a.x),
           .b = a.w.as<float>(),
           .ldb = leading(a.w),
           .c = a.y.as<float>(),
           .ldc = leading(a.y)},
          a.b.as<float>());
}

void linear_backward(Context& context, const LinearBackward& a) {
  check_matrix("x", a.x);
  check_matrix("w", a.w);
  check_matrix("dy", a.dy);
  check_extent("x", a.x, "w", a.w, 'K', 1, 1);
  check_extent("x", a.x, "dy", a.dy, 'M', 0, 0);
  check_extent("w", a.w, "dy", a.dy, 'N', 0, 1);
  const int64_t M = a.x.size(0), K = a.x.size(1), N = a.w.size(0);
  if (!a.dx.empty()) {
    check_matrix("dx", a.dx);
    check_extent("x", a.x, "dx", a.dx, 'M', 0, 0);
    check_extent("x", a.x, "dx", a.dx, 'K', 1, 1);
  }
  if (!a.dw.empty()) {
    check_matrix("dw", a.dw);
    check_extent("w", a.w, "dw", a.dw, 'N', 0, 0);
    check_extent("w", a.w, "dw", a.dw, 'K', 1, 1);
  }
  if (!a.db.empty()) check_vector("db", a.db, N);
  if (use_ref(context, kOp, "onednn")) return backward_ref(a);
  const float* dy = a.dy.as<float>();
  if (!a.dx.empty())  // dx = dy W
    product({.m = M,
             .n = K,
             .k = N,
             .beta = a.dx_write == Write::kAccumulate ? 1.0f : 0.0f,
             .a = dy,
             .lda = leading(a.dy),
             .b = a.w.as<float>(),
             .ldb = leading(a.w),
             .c = a.dx.as<float>(),
             .ldc = leading(a.dx)},
            nullptr);
  if (!a.dw.empty() && M > 0)  // dW += dy^T x
    product({.trans_a = onednn::Trans::kYes,
             .m = N,
             .n = K,
             .k = M,
             .beta = 1.0f,
             .a = dy,
             .lda = leading(a.dy),
             .b = a.x.as<float>(),
             .ldb = leading(a.x),
             .c = a.dw.as<float>(),
             .ldc = leading(a.dw)},
            nullptr);
  if (!a.db.empty()) bias_gradient(context, a.dy, a.db);
}

}  // namespace coca::ops

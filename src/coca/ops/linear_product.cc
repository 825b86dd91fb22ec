// Products are cut into tiles of the output by shape alone, one oneDNN call on one thread each: their bits do
// not depend on the number of threads. A whole oneDNN product may split its sums between threads.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/linear_product.h"

#include <algorithm>
#include <atomic>

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/cast.h"
#include "coca/kernels/cpu/linear.h"

namespace coca::ops {

namespace {

using onednn::Trans;

constexpr int64_t kTileEdge = 512;
constexpr int64_t kWidenDepth = 256;  // of k widened at a time: two operands of 512 KiB
constexpr int64_t kFewRows = 8;       // of A that meet every row of B as it is read; decoding has as many as sequences

struct Tiles {
  int64_t rows, cols;
};

// Tiles of at most 512 x 512, halved while there are fewer than 16 of them and an edge above 64.
Tiles choose_tiles(int64_t m, int64_t n) {
  Tiles t{std::min(m, kTileEdge), std::min(n, kTileEdge)};
  const auto count = [&] { return ((m + t.rows - 1) / t.rows) * ((n + t.cols - 1) / t.cols); };
  while (count() < 16 && std::max(t.rows, t.cols) > 64) {
    int64_t& edge = t.rows >= t.cols ? t.rows : t.cols;
    edge = std::max<int64_t>(64, (edge / 2 + 15) / 16 * 16);
  }
  return t;
}

// One tile of C as a product whose C is fp32.
template <typename T>
onednn::Gemm<T> tile_gemm(const Product& p, int64_t row, int64_t col, int64_t rows, int64_t cols, float* c, int64_t ldc,
                          float beta) {
  return {.trans_a = p.trans_a,
          .trans_b = p.trans_b,
          .m = rows,
          .n = cols,
          .k = p.k,
          .beta = beta,
          .a = static_cast<const T*>(p.a) + (p.trans_a == Trans::kNo ? row * p.lda : row),
          .lda = p.lda,
          .b = static_cast<const T*>(p.b) + (p.trans_b == Trans::kNo ? col : col * p.ldb),
          .ldb = p.ldb,
          .c = c,
          .ldc = ldc};
}

void widen_rows(const BF16* from, int64_t ld, int64_t rows, int64_t cols, float* to) {
  for (int64_t r = 0; r < rows; ++r) cpu::cast(from + r * ld, to + r * cols, cols);
}

// As gemm(), through fp32 copies of the operands. work: 2 kTileEdge kWidenDepth floats.
bool gemm_widened(const onednn::Gemm<BF16>& g, float* work) {
  if (g.trans_a == Trans::kNo && g.trans_b == Trans::kYes && g.m <= kFewRows) {
    cpu::dot_rows(g.a, g.lda, g.b, g.ldb, g.m, g.n, g.k, g.beta, g.c, g.ldc);
    return true;
  }
  float* a = work;
  float* b = work + kTileEdge * kWidenDepth;
  bool ok = true;
  for (int64_t k0 = 0; k0 < g.k || k0 == 0; k0 += kWidenDepth) {
    const int64_t depth = std::min(kWidenDepth, g.k - k0);
    const bool ta = g.trans_a == Trans::kYes, tb = g.trans_b == Trans::kYes;
    widen_rows(g.a + (ta ? k0 * g.lda : k0), g.lda, ta ? depth : g.m, ta ? g.m : depth, a);
    widen_rows(g.b + (tb ? k0 : k0 * g.ldb), g.ldb, tb ? g.n : depth, tb ? depth : g.n, b);
    ok = ok && onednn::gemm(onednn::Gemm<float>{.trans_a = g.trans_a,
                                                .trans_b = g.trans_b,
                                                .m = g.m,
                                                .n = g.n,
                                                .k = depth,
                                                .beta = k0 == 0 ? g.beta : 1.0f,
                                                .a = a,
                                                .lda = std::max<int64_t>(1, ta ? g.m : depth),
                                                .b = b,
                                                .ldb = std::max<int64_t>(1, tb ? depth : g.n),
                                                .c = g.c,
                                                .ldc = g.ldc});
  }
  return ok;
}

}  // namespace

void product(Context& context, Bf16Product how, const Product& p) {
  if (p.m == 0 || p.n == 0) return;
  const Tiles tile = choose_tiles(p.m, p.n);
  const int64_t across = (p.n + tile.cols - 1) / tile.cols, down = (p.m + tile.rows - 1) / tile.rows;
  const bool widened = p.type == DType::kBF16 && how == Bf16Product::kWidened, rounded = p.c_type == DType::kBF16;
  const int64_t own = (widened ? 2 * kTileEdge * kWidenDepth : 0) + (rounded ? tile.rows * tile.cols : 0);
  auto* work = static_cast<float*>(context.scratch(static_cast<size_t>(own * max_threads()) * sizeof(float)));
  const float beta = p.write == Write::kAccumulate && !rounded ? 1.0f : 0.0f;
  std::atomic<bool> ok{true};
  const auto run_tile = [&](int64_t task) {
    if (task >= across * down) return;
    const int64_t row = task / across * tile.rows, col = task % across * tile.cols;
    const int64_t rows = std::min(tile.rows, p.m - row), cols = std::min(tile.cols, p.n - col);
    float* mine = work + thread_index() * own;
    float* sums = rounded ? mine + (own - tile.rows * tile.cols) : static_cast<float*>(p.c) + row * p.ldc + col;
    const int64_t ld = rounded ? tile.cols : p.ldc;
    if (p.type == DType::kF32) {
      if (!onednn::gemm(tile_gemm<float>(p, row, col, rows, cols, sums, ld, beta))) ok = false;
    } else {
      const onednn::Gemm<BF16> g = tile_gemm<BF16>(p, row, col, rows, cols, sums, ld, beta);
      if (!(widened ? gemm_widened(g, mine) : onednn::gemm(g))) ok = false;
    }
    if (p.bias) cpu::add_bias_rows(p.bias + col, sums, ld, rows, cols);
    if (!rounded) return;
    BF16* c = static_cast<BF16*>(p.c) + row * p.ldc + col;
    if (p.write == Write::kAccumulate) cpu::add_rows(c, p.ldc, sums, ld, rows, cols);
    for (int64_t r = 0; r < rows; ++r) cpu::cast(sums + r * ld, c + r * p.ldc, cols);
  };
  // Never fewer than two tasks: inside a parallel region oneDNN keeps to one thread.
  parallel_for(std::max<int64_t>(2, across * down), run_tile);
  COCA_CHECK_AS(kInternal, ok.load(), "[linear] oneDNN refused a product of {} x {} x {}", p.m, p.n, p.k);
}

}  // namespace coca::ops

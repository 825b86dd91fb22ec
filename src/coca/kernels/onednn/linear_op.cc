// Products are cut into tiles of the output by shape alone, one oneDNN call on one thread each: their bits do
// not depend on the number of threads. A whole oneDNN product may split its sums between threads.
// Products of bf16 operands run as they are (row "onednn"), or widened to fp32 in blocks where the CPU has no generated
// code for them (row "widened").
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>

#include "coca/base/parallel.h"
#include "coca/kernels/args/blocks.h"
#include "coca/kernels/args/float_types.h"
#include "coca/kernels/args/leading.h"
#include "coca/kernels/cpu/cast.h"
#include "coca/kernels/cpu/linear.h"
#include "coca/kernels/cpu/target.h"
#include "coca/kernels/onednn/gemm.h"
#include "coca/kernels/onednn/rows.h"

namespace coca::onednn {

namespace {

// C[m, n] = op(A) op(B), or C += it, then + bias in every row. A and B of one type, C of either; sums in fp32, C
// rounded once.
struct Product {
  Trans trans_a = Trans::kNo, trans_b = Trans::kNo;
  int64_t m = 0, n = 0, k = 0;
  DType type = DType::kF32;  // of A and B
  const void* a = nullptr;
  int64_t lda = 0;
  const void* b = nullptr;
  int64_t ldb = 0;
  DType c_type = DType::kF32;
  void* c = nullptr;
  int64_t ldc = 0;
  ops::Write write = ops::Write::kAssign;
  const float* bias = nullptr;  // [n] or null
};

// How bf16 operands are multiplied: by oneDNN as they are, or widened to fp32 in blocks where the CPU has no
// generated code for them. fp32 operands go to oneDNN either way.
enum class Bf16Product : uint8_t { kNative, kWidened };

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
Gemm<T> tile_gemm(const Product& p, int64_t row, int64_t col, int64_t rows, int64_t cols, float* c, int64_t ldc,
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
bool gemm_widened(const Gemm<BF16>& g, float* work) {
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
    ok = ok && gemm(Gemm<float>{.trans_a = g.trans_a,
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

void product(Context& context, Bf16Product how, const Product& p) {
  if (p.m == 0 || p.n == 0) return;
  const Tiles tile = choose_tiles(p.m, p.n);
  const int64_t across = (p.n + tile.cols - 1) / tile.cols, down = (p.m + tile.rows - 1) / tile.rows;
  const bool widened = p.type == DType::kBF16 && how == Bf16Product::kWidened, rounded = p.c_type == DType::kBF16;
  const int64_t own = (widened ? 2 * kTileEdge * kWidenDepth : 0) + (rounded ? tile.rows * tile.cols : 0);
  auto* work = static_cast<float*>(context.scratch(static_cast<size_t>(own * max_threads()) * sizeof(float)));
  const float beta = p.write == ops::Write::kAccumulate && !rounded ? 1.0f : 0.0f;
  std::atomic<bool> ok{true};
  const auto run_tile = [&](int64_t task) {
    if (task >= across * down) return;
    const int64_t row = task / across * tile.rows, col = task % across * tile.cols;
    const int64_t rows = std::min(tile.rows, p.m - row), cols = std::min(tile.cols, p.n - col);
    float* mine = work + thread_index() * own;
    float* sums = rounded ? mine + (own - tile.rows * tile.cols) : static_cast<float*>(p.c) + row * p.ldc + col;
    const int64_t ld = rounded ? tile.cols : p.ldc;
    if (p.type == DType::kF32) {
      if (!gemm(tile_gemm<float>(p, row, col, rows, cols, sums, ld, beta))) ok = false;
    } else {
      const Gemm<BF16> g = tile_gemm<BF16>(p, row, col, rows, cols, sums, ld, beta);
      if (!(widened ? gemm_widened(g, mine) : gemm(g))) ok = false;
    }
    if (p.bias) cpu::add_bias_rows(p.bias + col, sums, ld, rows, cols);
    if (!rounded) return;
    BF16* c = static_cast<BF16*>(p.c) + row * p.ldc + col;
    if (p.write == ops::Write::kAccumulate) cpu::add_rows(c, p.ldc, sums, ld, rows, cols);
    for (int64_t r = 0; r < rows; ++r) cpu::cast(sums + r * ld, c + r * p.ldc, cols);
  };
  // Never fewer than two tasks: inside a parallel region oneDNN keeps to one thread.
  parallel_for(std::max<int64_t>(2, across * down), run_tile);
  COCA_CHECK_AS(kInternal, ok.load(), "[linear] oneDNN refused a product of {} x {} x {}", p.m, p.n, p.k);
}

// db[n] += sum of dy[:, n]: partial sums of fixed blocks of rows, added in order.
void bias_gradient(Context& context, TensorRef dy, MutTensorRef db) {
  const int64_t M = dy.size(0), N = dy.size(1), block_rows = ops::reduction_rows(M), ld = ops::leading(dy);
  const int64_t blocks = (M + block_rows - 1) / block_rows;
  float* partial = context.scratch_tensor({std::max<int64_t>(1, blocks), N}).as<float>();
  ops::with_float_type(dy.dtype, [&](auto zero) {
    const auto* from = dy.as<decltype(zero)>();
    parallel_blocks(M, block_rows, [&](int64_t m0, int64_t m1) {
      float* sums = partial + m0 / block_rows * N;
      std::fill_n(sums, N, 0.0f);
      cpu::add_column_sums(from + m0 * ld, ld, m1 - m0, N, sums);
    });
  });
  float* to = db.as<float>();
  parallel_blocks(N, 4096,
                  [&](int64_t n0, int64_t n1) { cpu::add_column_sums(partial + n0, N, blocks, n1 - n0, to + n0); });
}

// The product x w^T and similar ones: operands of one type, rows unchanged.
Product operands(TensorRef a, Trans trans_a, TensorRef b, Trans trans_b, MutTensorRef c, ops::Write write) {
  return {.trans_a = trans_a,
          .trans_b = trans_b,
          .m = trans_a == Trans::kNo ? a.size(0) : a.size(1),
          .n = trans_b == Trans::kNo ? b.size(1) : b.size(0),
          .k = trans_a == Trans::kNo ? a.size(1) : a.size(0),
          .type = a.dtype,
          .a = a.data,
          .lda = ops::leading(a),
          .b = b.data,
          .ldb = ops::leading(b),
          .c_type = c.dtype,
          .c = c.data,
          .ldc = ops::leading(c),
          .write = write};
}

template <Bf16Product kHow>
void forward(Context& context, const ops::LinearForward& a) {
  Product p = operands(a.x, Trans::kNo, a.w, Trans::kYes, a.y, a.y_write);
  p.bias = a.b.as<float>();
  product(context, kHow, p);
}

template <Bf16Product kHow>
void backward(Context& context, const ops::LinearBackward& a) {
  if (!a.dx.empty())
    product(context, kHow, operands(a.dy, Trans::kNo, a.w, Trans::kNo, a.dx, a.dx_write));  // dx = dy W
  if (!a.dw.empty() && a.x.size(0) > 0)                                                     // dW += dy^T x
    product(context, kHow, operands(a.dy, Trans::kYes, a.x, Trans::kNo, a.dw, ops::Write::kAccumulate));
  if (!a.db.empty()) bias_gradient(context, a.dy, a.db);
}

bool multiplies(const DType& type) {
  return type == DType::kF32 || (cpu::active_target().starts_with("AVX3") && bf16_products());
}
bool widens(const DType& type) { return type == DType::kBF16; }

}  // namespace

const ops::LinearImpl linear_row{
    .name = "onednn", .supports = multiplies, .run = {forward<Bf16Product::kNative>, backward<Bf16Product::kNative>}};
const ops::LinearImpl linear_widened_row{
    .name = "widened", .supports = widens, .run = {forward<Bf16Product::kWidened>, backward<Bf16Product::kWidened>}};

}  // namespace coca::onednn

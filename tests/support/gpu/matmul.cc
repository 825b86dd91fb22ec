// Replaces cuBLASLt: the same checks of arguments, and loops in double.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cuda/matmul.h"

#include "gpu/stand_in.h"

namespace coca::cuda {

namespace {

template <typename T>
double number(const void* data, int64_t at) {
  return static_cast<double>(static_cast<float>(static_cast<const T*>(data)[at]));
}
double element(TensorRef t, int64_t row, int64_t column) {
  const int64_t at = row * t.stride(0) + column;
  return t.dtype == DType::kBF16 ? number<BF16>(t.data, at) : number<float>(t.data, at);
}

}  // namespace

void matmul(Context& cx, const Matmul& p) {
  const MatmulExtents e = check_matmul(p);
  for (const void* data : {p.a.data, p.b.data, static_cast<const void*>(p.c.data)}) gpu::check_pointer(cx, data);
  gpu::queue(cx, [p, e] {
    for (int64_t i = 0; i < e.m; ++i)
      for (int64_t j = 0; j < e.n; ++j) {
        double sum = p.write == ops::Write::kAccumulate ? element(p.c, i, j) : 0.0;
        for (int64_t l = 0; l < e.k; ++l)
          sum += (p.turn_a == Turn::kYes ? element(p.a, l, i) : element(p.a, i, l)) *
                 (p.turn_b == Turn::kYes ? element(p.b, j, l) : element(p.b, l, j));
        const int64_t at = i * p.c.stride(0) + j;
        if (p.c.dtype == DType::kBF16)
          static_cast<BF16*>(p.c.data)[at] = BF16(static_cast<float>(sum));
        else
          static_cast<float*>(p.c.data)[at] = static_cast<float>(sum);
      }
  });
}

}  // namespace coca::cuda

// coca/kernels/cuda/matmul.h - matrix products on the device. matmul.cc uses cuBLASLt; in tests,
// tests/support/gpu/matmul.cc checks the same arguments and computes with loops.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/write.h"
#include "coca/tensor/context.h"

namespace coca::cuda {

enum class Turn : uint8_t { kNo, kYes };

// c [m, n] = op(a) op(b), or c += it. Rows may be strided; the innermost stride is 1. a and b have the same type, f32
// or bf16; c has f32, or bf16 if a and b have it too. Sums are in fp32 (not TF32), and c is rounded once.
struct Matmul {
  TensorRef a;  // [m, k], or [k, m] if turned
  Turn turn_a = Turn::kNo;
  TensorRef b;  // [k, n], or [n, k] if turned
  Turn turn_b = Turn::kNo;
  MutTensorRef c;
  ops::Write write = ops::Write::kAssign;
};

// m, n and k are at least 1. Uses the Context's scratch.
void matmul(Context&, const Matmul&);

struct MatmulExtents {
  int64_t m, n, k;
};
// Checks shapes, strides and types.
inline MatmulExtents check_matmul(const Matmul& p) {
  const bool ta = p.turn_a == Turn::kYes, tb = p.turn_b == Turn::kYes;
  const auto matrix = [](TensorRef t) {
    return t.rank() == 2 && t.numel() > 0 && (t.size(1) == 1 || t.stride(1) == 1) &&
           (t.size(0) == 1 || t.stride(0) >= t.size(1)) && (t.dtype == DType::kF32 || t.dtype == DType::kBF16);
  };
  COCA_CHECK_AS(kInternal, matrix(p.a) && matrix(p.b) && matrix(p.c), "[matmul] {}, {} and {} must be matrices",
                p.a.shape.text(), p.b.shape.text(), p.c.shape.text());
  const MatmulExtents e{p.c.size(0), p.c.size(1), p.a.size(ta ? 0 : 1)};
  COCA_CHECK_AS(kInternal, p.a.size(ta ? 1 : 0) == e.m && p.b.size(tb ? 1 : 0) == e.k && p.b.size(tb ? 0 : 1) == e.n,
                "[matmul] the product of {} and {} does not have the shape {}", p.a.shape.text(), p.b.shape.text(),
                p.c.shape.text());
  COCA_CHECK_AS(kInternal, p.a.dtype == p.b.dtype && (p.c.dtype == DType::kF32 || p.a.dtype == DType::kBF16),
                "[matmul] {} times {} cannot give {}", dtype_name(p.a.dtype), dtype_name(p.b.dtype),
                dtype_name(p.c.dtype));
  return e;
}

}  // namespace coca::cuda

// SPDX-License-Identifier: Apache-2.0
#include "coca/base/parallel.h"
#include "coca/kernels/args/blocks.h"
#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cpu/cross_entropy.h"
#include "coca/kernels/cpu/rows.h"

namespace coca::cpu {

namespace {

void forward(Context&, const ops::CrossEntropyForward& a) {
  const int64_t M = a.logits.size(0), V = a.logits.size(1);
  const float* x = a.logits.as<float>();
  const auto* targets = a.targets.as<int32_t>();
  float *nll = a.nll.as<float>(), *lse = a.lse.as<float>();
  parallel_blocks(M, ops::grain_of(V), [&](int64_t m0, int64_t m1) {
    cross_entropy_rows({x + m0 * V, targets + m0, V}, nll + m0, lse ? lse + m0 : nullptr, m1 - m0);
  });
}

void backward(Context&, const ops::CrossEntropyBackward& a) {
  const int64_t M = a.logits.size(0), V = a.logits.size(1);
  const float *x = a.logits.as<float>(), *lse = a.lse.as<float>();
  const auto* targets = a.targets.as<int32_t>();
  float* dlogits = a.dlogits.as<float>();
  parallel_blocks(M, ops::grain_of(V), [&](int64_t m0, int64_t m1) {
    cross_entropy_rows_backward({x + m0 * V, targets + m0, V}, lse + m0, a.scale, dlogits + m0 * V, m1 - m0);
  });
}

template <typename T>
void fused_as(const ops::CrossEntropyFused& a) {
  const int64_t M = a.logits.size(0), V = a.logits.size(1);
  float *x = a.logits.as<float>(), *nll = a.nll.as<float>();
  const auto* targets = a.targets.as<int32_t>();
  T* dx = a.dlogits.as<T>();
  parallel_blocks(M, ops::grain_of(V), [&](int64_t m0, int64_t m1) {
    cross_entropy_rows_fused(x + m0 * V, targets + m0, V, a.scale, nll + m0, dx + m0 * V, m1 - m0);
  });
}

void fused(Context&, const ops::CrossEntropyFused& a) {
  ops::with_float_type(a.dlogits.dtype, [&](auto zero) { fused_as<decltype(zero)>(a); });
}

}  // namespace

const ops::CrossEntropyImpl cross_entropy_row{.name = "cpu", .run = {forward, backward, fused}};

}  // namespace coca::cpu

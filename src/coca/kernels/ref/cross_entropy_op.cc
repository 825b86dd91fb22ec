// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "coca/kernels/ref/cast.h"
#include "coca/kernels/ref/cross_entropy.h"
#include "coca/kernels/ref/rows.h"

namespace coca::ref {

namespace {

void forward(Context&, const ops::CrossEntropyForward& a) {
  cross_entropy_forward(a.logits.size(0), a.logits.size(1), a.logits.as<float>(), a.targets.as<int32_t>(),
                        a.nll.as<float>(), a.lse.as<float>());
}

void backward(Context&, const ops::CrossEntropyBackward& a) {
  cross_entropy_backward(a.logits.size(0), a.logits.size(1), a.logits.as<float>(), a.targets.as<int32_t>(),
                         a.lse.as<float>(), a.scale, a.dlogits.as<float>());
}

void fused(Context&, const ops::CrossEntropyFused& a) {
  const int64_t M = a.logits.size(0), V = a.logits.size(1);
  float* x = a.logits.as<float>();
  const auto* targets = a.targets.as<int32_t>();
  std::vector<float> lse(static_cast<size_t>(M));
  cross_entropy_forward<float>(M, V, x, targets, a.nll.as<float>(), lse.data());
  cross_entropy_backward<float>(M, V, x, targets, lse.data(), a.scale, x);
  if (a.dlogits.dtype == DType::kBF16) cast(M * V, x, a.dlogits.as<BF16>());
}

}  // namespace

const ops::CrossEntropyImpl cross_entropy_row{.name = "ref", .run = {forward, backward, fused}};

}  // namespace coca::ref

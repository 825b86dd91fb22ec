// coca/kernels/args/adamw_factors.h - the scalars of an AdamW step, which every implementation needs. Math:
// docs/math/adamw.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coca/kernels/args/adamw.h"

namespace coca::ops {

// Ready to use: the bias corrections are folded into step_size and root_scale.
struct AdamWFactors {
  float grad_scale = 1.0f;
  float beta1 = 0.9f, one_minus_beta1 = 0.1f;
  float beta2 = 0.95f, one_minus_beta2 = 0.05f;
  float decay = 1.0f;       // 1 - learning_rate * weight_decay
  float step_size = 1e-3f;  // learning_rate / (1 - beta1^step)
  float root_scale = 1.0f;  // 1 / sqrt(1 - beta2^step)
  float eps = 1e-8f;
};

inline AdamWFactors adamw_factors(const AdamWStep& a) {
  const double beta1 = a.beta1, beta2 = a.beta2, lr = a.learning_rate, step = static_cast<double>(a.step);
  return {.grad_scale = a.grad_scale,
          .beta1 = a.beta1,
          .one_minus_beta1 = static_cast<float>(1.0 - beta1),
          .beta2 = a.beta2,
          .one_minus_beta2 = static_cast<float>(1.0 - beta2),
          .decay = static_cast<float>(1.0 - lr * static_cast<double>(a.weight_decay)),
          .step_size = static_cast<float>(lr / (1.0 - std::pow(beta1, step))),
          .root_scale = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(beta2, step))),
          .eps = a.eps};
}

}  // namespace coca::ops

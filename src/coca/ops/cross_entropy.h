// coca/ops/cross_entropy.h - next-token loss, and the language-model head fused with it in chunks of rows, so that
// [M, V] logits never exist as a whole. Math: docs/math/cross_entropy.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/cross_entropy.h"

namespace coca::ops {

void cross_entropy_forward(Context&, const CrossEntropyForward&);
void cross_entropy_backward(Context&, const CrossEntropyBackward&);
void lm_loss_forward(Context&, const LmLoss&);
// Loss and gradients in one pass over the chunks (the logits are computed once).
void lm_loss_forward_backward(Context&, const LmLoss&, const LmLossGrad&);

}  // namespace coca::ops

// coca/ops/embedding.h - table look-up and its scatter-add gradient (deterministic for any thread count).
// Math: docs/math/embedding.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/embedding.h"

namespace coca::ops {

void embedding_forward(Context&, const EmbeddingForward&);
void embedding_backward(Context&, const EmbeddingBackward&);

}  // namespace coca::ops

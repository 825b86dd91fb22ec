// coca/ops/embedding.h - table look-up and its scatter-add gradient (deterministic for any thread count).
// Math: docs/math/embedding.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/tensor/context.h"

namespace coca::ops {

struct EmbeddingForward {
  TensorRef ids;      // [M] i32, 0 <= id < V, else Error naming the first bad id and its place
  TensorRef table;    // [V, C]
  MutTensorRef y;     // [M, C] written
};
struct EmbeddingBackward {
  TensorRef ids;        // [M] i32
  TensorRef dy;         // [M, C]
  MutTensorRef dtable;  // [V, C] accumulated (+=)
};

void embedding_forward(Context&, const EmbeddingForward&);
void embedding_backward(Context&, const EmbeddingBackward&);

}  // namespace coca::ops

// coca/ops/embedding.h - table look-up and its scatter-add gradient (deterministic for any thread count).
// Math: docs/math/embedding.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/tensor/context.h"

namespace coca::ops {

struct EmbeddingForward {
  TensorRef ids;      // [M] i32, 0 <= id < V, else Error naming the first bad id and its place
  TensorRef table;    // [V, C] f32 or bf16
  MutTensorRef y;     // [M, C] f32 written
};
struct EmbeddingBackward {
  TensorRef ids;        // [M] i32
  TensorRef dy;         // [M, C] f32
  MutTensorRef dtable;  // [V, C] f32 accumulated (+=)
};

void embedding_forward(Context&, const EmbeddingForward&);
void embedding_backward(Context&, const EmbeddingBackward&);

}  // namespace coca::ops

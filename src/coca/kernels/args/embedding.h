// coca/kernels/args/embedding.h - what embedding takes; ops/embedding.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/implementation.h"

namespace coca::ops {

struct EmbeddingForward {
  TensorRef ids;    // [M] i32, 0 <= id < V, else Error naming the first bad id and its place
  TensorRef table;  // [V, C] f32 or bf16
  MutTensorRef y;   // [M, C] f32 written
};
struct EmbeddingBackward {
  TensorRef ids;        // [M] i32
  TensorRef dy;         // [M, C] f32
  MutTensorRef dtable;  // [V, C] f32 accumulated (+=)
};

struct EmbeddingFunctions {
  void (*forward)(Context&, const EmbeddingForward&);
  void (*backward)(Context&, const EmbeddingBackward&);
};
using EmbeddingImpl = Implementation<EmbeddingFunctions>;

}  // namespace coca::ops

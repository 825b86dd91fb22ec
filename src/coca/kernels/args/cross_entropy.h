// coca/kernels/args/cross_entropy.h - what cross_entropy takes; ops/cross_entropy.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/kernels/args/implementation.h"

namespace coca::ops {

inline constexpr int32_t kIgnoreTarget = -1;  // rows with this target have no loss and no gradient

// The loss of given logits, all f32.
struct CrossEntropyForward {
  TensorRef logits;   // [M, V]
  TensorRef targets;  // [M] i32, 0 <= id < V or kIgnoreTarget
  MutTensorRef nll;   // [M] f32 written: -log softmax(logits)[target], 0 for ignored rows
  MutTensorRef lse;   // [M] f32 written: log sum exp; empty: not wanted
};
struct CrossEntropyBackward {
  TensorRef logits, targets, lse;
  float scale = 1.0f;    // dloss: the factor of each row's gradient, usually 1 / counted rows
  MutTensorRef dlogits;  // [M, V] written; may be logits
};

// The loss fused with logits = x W^T. Scratch from the Context: chunk_rows * V logits in f32 and, for bf16 gradients,
// as many dlogits in bf16, rounded once, because the operands of the gradient's products must have one type. On a
// device, targets may lie on the host, from where they are sent, and so may nll: then the op waits for the device.
struct LmLoss {
  TensorRef x;             // [M, C] final hidden states, f32 or bf16
  TensorRef w;             // [V, C] output embedding, x's type
  TensorRef targets;       // [M] i32 or kIgnoreTarget
  MutTensorRef nll;        // [M] f32 written
  int64_t chunk_rows = 0;  // rows at a time; 0: the op chooses (about 16 MiB of logits, at least 128 rows)
};
struct LmLossGrad {
  float scale = 1.0f;  // as in CrossEntropyBackward
  MutTensorRef dx;     // [M, C] written; f32, or bf16 with bf16 x
  MutTensorRef dw;     // [V, C] f32 accumulated (+=); empty: not wanted
};

// Loss and gradient of a chunk of the fused loss.
struct CrossEntropyFused {
  MutTensorRef logits;   // [M, V] f32, overwritten
  TensorRef targets;     // [M] i32
  float scale = 1.0f;    // as in CrossEntropyBackward
  MutTensorRef nll;      // [M] f32 written
  MutTensorRef dlogits;  // [M, V] written: the logits themselves, or bf16
};
struct CrossEntropyFunctions {
  void (*forward)(Context&, const CrossEntropyForward&);
  void (*backward)(Context&, const CrossEntropyBackward&);
  void (*fused)(Context&, const CrossEntropyFused&);
};
using CrossEntropyImpl = Implementation<CrossEntropyFunctions>;

}  // namespace coca::ops

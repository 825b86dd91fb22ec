// coca/kernels/args/embedding.h - what embedding takes; ops/embedding.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/kernels/args/implementation.h"

namespace coca::ops {

// Who compares ids on a device with V. The op has to wait for the device to do it; a caller that has seen to it spares
// that. Ids on the host are always checked there, and then sent to the device: this waits for nothing.
enum class IdCheck : uint8_t { kHere, kDone };

struct EmbeddingForward {
  TensorRef ids;    // [M] i32, 0 <= id < V, else Error naming the first bad id and its place; may lie on the host
  TensorRef table;  // [V, C] f32 or bf16
  MutTensorRef y;   // [M, C] f32 written
  IdCheck check = IdCheck::kHere;
};
struct EmbeddingBackward {
  TensorRef ids;        // [M] i32, as above
  TensorRef dy;         // [M, C] f32
  MutTensorRef dtable;  // [V, C] f32 accumulated (+=)
  IdCheck check = IdCheck::kHere;
};

struct EmbeddingFunctions {
  void (*forward)(Context&, const EmbeddingForward&);
  void (*backward)(Context&, const EmbeddingBackward&);
};
using EmbeddingImpl = Implementation<EmbeddingFunctions>;

}  // namespace coca::ops

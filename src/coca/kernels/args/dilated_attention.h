// coca/kernels/args/dilated_attention.h - what dilated_attention takes; ops/dilated_attention.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "coca/kernels/args/attention.h"
#include "coca/kernels/args/implementation.h"

namespace coca::ops {

struct DilatedAttentionOptions {
  AttentionOptions attention;         // with a window if a dilation is above 1; default spacing and first_place
  std::span<const int64_t> dilation;  // [H], at least 1, equal for heads that share a key/value head; empty: all 1
};

// The starts of documents in the sequence of positions r, r + d, ..., counted in this sequence.
struct ResidueStarts {
  TensorRef document_start;           // [B, N] i32, rows contiguous: of all positions
  int64_t residue = 0, dilation = 1;  // r and d
  int64_t first_query = 0;            // the first query at such a position
  MutTensorRef starts;                // [B, n] i32 written
};
struct DilatedAttentionFunctions {
  void (*residue_starts)(Context&, const ResidueStarts&);
};
using DilatedAttentionImpl = Implementation<DilatedAttentionFunctions>;

}  // namespace coca::ops

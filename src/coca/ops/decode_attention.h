// coca/ops/decode_attention.h - attention of new tokens over the cache, which holds keys before rotation; queries are
// given as attention sees them (rope_forward, collinear_query). The cache is read once. Keys are widened and rotated in
// registers, so no rotated key is ever stored and the frequencies may change with every call (dynamic NTK). Math:
// docs/math/decode_attention.md. No backward. Long caches are cut into ranges that depend on a sequence's shape alone
// and are merged in order: the same bits for any number of threads, alone and beside other sequences.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/decode_attention.h"

namespace coca::ops {

void decode_attention(Context&, const DecodeAttentionOptions&, const DecodeAttention&);

}  // namespace coca::ops

// coca/ops/decode_attention.h - attention of new tokens over the cache, which holds un-rotated keys. The cache is read
// once; keys are widened and rotated in registers, so nothing rotated is ever kept and the frequencies may change with
// every call (dynamic NTK). Math: docs/math/decode_attention.md. No backward.
// Long caches are cut into ranges by shape alone, merged in order: the same bits for any number of threads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/decode_attention.h"

namespace coca::ops {

void decode_attention(Context&, const DecodeAttentionOptions&, const DecodeAttention&);

}  // namespace coca::ops

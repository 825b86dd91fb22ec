// coca/ops/top_keys.h - a few keys more for an attention that is done: each query and head picks the `count` keys of the
// middle that score highest, and these join its softmax (LM-Infinite's option, Han et al. 2024, section 3). No backward.
// Math: docs/math/top_keys.md. Keys may come in blocks, in their order, and values after them in blocks again: what is kept
// between is the lists, never N x S. The same bits for any number of threads and any blocks that begin at multiples of 64.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/top_keys.h"

namespace coca::ops {

void top_keys_find(Context&, const TopKeysOptions&, const TopKeysFind&);
void top_keys_add(Context&, const TopKeysAdd&);

}  // namespace coca::ops

// coca/ops/top_keys.h - adds a few keys to an attention that has been computed: each query and head picks the `count`
// keys of the middle with the highest scores, and these join its softmax (LM-Infinite's option, Han et al. 2024,
// section 3). No backward. Math: docs/math/top_keys.md. Keys may be given in blocks, in their order, and after them
// values, again in blocks. Only the lists of keys are kept in between, never N x S numbers. The bits are the same for
// any number of threads and for any blocks that begin at multiples of 64.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/top_keys.h"

namespace coca::ops {

void top_keys_find(Context&, const TopKeysOptions&, const TopKeysFind&);
void top_keys_add(Context&, const TopKeysAdd&);

}  // namespace coca::ops

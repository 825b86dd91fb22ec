// coca/ops/kv_store.h - writes tokens into the pages of the cache and reads them back as floats.
// Types: f32 as it is; bf16 rounded to nearest even; int8 with scale = largest magnitude of the token's head / 127 (/ 255
// for keys that are not negative), so that |x - stored| <= scale / 2. A head with a NaN or an infinity reads back as
// NaN throughout. Negative keys under KeySign::kNonNegative become 0.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/kv_store.h"

namespace coca::ops {

void kv_store(Context&, const KvStore&);
void kv_load(Context&, const KvLoad&);

}  // namespace coca::ops

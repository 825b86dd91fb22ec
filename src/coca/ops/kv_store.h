// coca/ops/kv_store.h - writes tokens into the pages of the cache and reads them back as floats.
// Types: f32 unchanged; bf16 rounded to nearest even; int8 with scale = largest magnitude of the token's head / 127 (/
// 255 for keys that are never negative), so that |x - stored| <= scale / 2. A head with a NaN or an infinity is read
// back as all NaN. With KeySign::kNonNegative, negative keys become 0.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/kv_store.h"

namespace coca::ops {

// Several sequences at once, of one layout and with keys of one type.
void kv_store(Context&, std::span<const KvStore>);
inline void kv_store(Context& context, const KvStore& one) { kv_store(context, std::span(&one, 1)); }
void kv_load(Context&, const KvLoad&);

}  // namespace coca::ops

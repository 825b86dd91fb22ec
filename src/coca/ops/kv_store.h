// coca/ops/kv_store.h - writes tokens into the pages of the cache and reads them back as floats.
// Types: f32 as it is; bf16 rounded to nearest even; int8 with scale = largest magnitude of the token's head / 127 (/ 255
// for keys that are not negative), so that |x - stored| <= scale / 2. A head with a NaN or an infinity reads back as
// NaN throughout. Negative keys under KeySign::kNonNegative become 0.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/tensor/context.h"
#include "coca/tensor/kv_pages.h"

namespace coca::ops {

struct KvStore {
  TensorRef keys;     // [B, N, G, W] f32 or bf16, innermost stride 1
  TensorRef values;   // [B, N, G, D] f32 or bf16, innermost stride 1
  int64_t first = 0;  // token of the cache that row 0 becomes
  MutKvView cache;    // tokens first .. first + N - 1 written; first + N <= length
};
void kv_store(Context&, const KvStore&);

struct KvLoad {
  KvView cache;
  int64_t first = 0;    // first token to read
  MutTensorRef keys;    // [B, N, G, W] f32 written; empty: not wanted
  MutTensorRef values;  // [B, N, G, D] f32 written; empty: not wanted
};
void kv_load(Context&, const KvLoad&);

}  // namespace coca::ops

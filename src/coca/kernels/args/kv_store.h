// coca/kernels/args/kv_store.h - what kv_store takes; ops/kv_store.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "coca/kernels/args/implementation.h"
#include "coca/tensor/kv_pages.h"

namespace coca::ops {

struct KvStore {
  TensorRef keys;     // [1, N, G, W] f32 or bf16, innermost stride 1
  TensorRef values;   // [1, N, G, D] f32 or bf16, innermost stride 1
  int64_t first = 0;  // the token of the cache to which row 0 is written
  MutKvView cache;    // tokens first .. first + N - 1 written; first + N <= length
};

struct KvLoad {
  KvView cache;
  int64_t first = 0;    // first token to read
  MutTensorRef keys;    // [1, N, G, W] f32 written; empty: not wanted
  MutTensorRef values;  // [1, N, G, D] f32 written; empty: not wanted
};

struct KvStoreFunctions {
  void (*store)(Context&, std::span<const KvStore>);
  void (*load)(Context&, const KvLoad&);
};
using KvStoreImpl = Implementation<KvStoreFunctions>;

}  // namespace coca::ops

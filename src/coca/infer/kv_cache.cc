// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/kv_cache.h"

#include "coca/ops/kv_store.h"

namespace coca::infer {

KvCache::KvCache(const model::ModelSpec& spec, int64_t B, KvType type)
    : B_(B), pages_(model::cache_layout(spec, B, type), spec.L) {}

void KvCache::write(Context& cx, int64_t layer, int64_t first, TensorRef keys, TensorRef values) {
  ops::kv_store(cx, {.keys = keys, .values = values, .first = first,
                     .cache = pages_.mut_view(layer, first + keys.size(1))});
}

void KvCache::truncate(int64_t length) {
  COCA_CHECK(length >= 0 && length <= length_, "[kv_cache] cannot truncate {} tokens to {}", length_, length);
  length_ = length;
}

}  // namespace coca::infer

// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/kv_cache.h"

namespace coca::infer {

KvPool kv_pool(const model::ModelSpec& spec, KvType type, int64_t most_pages, DeviceMemory* memory) {
  return {model::cache_layout(spec, type), spec.L, most_pages, memory};
}

ops::KvStore KvCache::store(int64_t layer, int64_t first, TensorRef keys, TensorRef values) {
  return {.keys = keys, .values = values, .first = first, .cache = pages_.mut_view(layer, first, first + keys.size(1))};
}

void KvCache::forget_before(int64_t token) {
  const int64_t pages = (token - forgotten_) / kKvPage - 1;
  if (pages <= 0) return;
  pages_.recycle(1, pages);
  forgotten_ += pages * kKvPage;
}

void KvCache::truncate(int64_t length) {
  const int64_t least = forgotten_ > 0 ? forgotten_ + kKvPage : 0;
  COCA_CHECK(length >= least && length <= length_, "[kv_cache] cannot truncate {} tokens to {}; expected {} or more",
             length_, length, least);
  length_ = length;
  pages_.truncate(held());
}

}  // namespace coca::infer

// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/kv_cache.h"

#include "coca/ops/kv_store.h"

namespace coca::infer {

KvCache::KvCache(const model::ModelSpec& spec, int64_t B, KvType type) : B_(B) {
  COCA_CHECK(B >= 1, "[kv_cache] batch {} must be positive", B);
  layers_.reserve(static_cast<size_t>(spec.L));
  for (int64_t i = 0; i < spec.L; ++i) layers_.emplace_back(model::cache_layout(spec, B, type));
}

size_t KvCache::bytes() const {
  size_t sum = 0;
  for (const KvPages& layer : layers_) sum += layer.bytes();
  return sum;
}

void KvCache::reserve(int64_t tokens) {
  for (KvPages& layer : layers_) layer.reserve(tokens);
}

void KvCache::write(Context& cx, int64_t layer, int64_t first, TensorRef keys, TensorRef values) {
  ops::kv_store(cx, {.keys = keys, .values = values, .first = first,
                     .cache = layers_[static_cast<size_t>(layer)].mut_view(first + keys.size(1))});
}

void KvCache::truncate(int64_t length) {
  COCA_CHECK(length >= 0 && length <= length_, "[kv_cache] cannot truncate {} tokens to {}", length_, length);
  length_ = length;
}

}  // namespace coca::infer

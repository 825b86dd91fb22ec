// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/kv_cache.h"

#include <algorithm>
#include <cstring>

namespace coca::infer {

KvCache::KvCache(const model::ModelSpec& spec, int64_t B, int64_t capacity)
    : B_(B), G_(spec.G), key_width_(model::is_coca(spec.attention) ? spec.D / 2 : spec.D), D_(spec.D),
      layers_(static_cast<size_t>(spec.L)) {
  COCA_CHECK(B >= 1 && capacity >= 0, "[kv_cache] batch {} and capacity {} must be positive", B, capacity);
  reserve(std::max<int64_t>(capacity, 1));
}

size_t KvCache::bytes() const {
  return layers_.size() * static_cast<size_t>(B_ * capacity_ * G_ * (key_width_ + D_)) * sizeof(float);
}

void KvCache::reserve(int64_t tokens) {
  if (tokens <= capacity_) return;
  const int64_t grown = std::max(tokens, 2 * capacity_);
  const auto regrow = [&](Tensor& old, int64_t width) {
    Tensor bigger({B_, grown, G_, width});
    const auto row = static_cast<size_t>(G_ * width) * sizeof(float);
    for (int64_t b = 0; b < B_ && length_ > 0; ++b)
      std::memcpy(bigger.ref().select(0, b).data, old.ref().select(0, b).data, static_cast<size_t>(length_) * row);
    old = std::move(bigger);
  };
  for (Layer& layer : layers_) {
    regrow(layer.keys, key_width_);
    regrow(layer.values, D_);
  }
  capacity_ = grown;
}

void KvCache::truncate(int64_t length) {
  COCA_CHECK(length >= 0 && length <= length_, "[kv_cache] cannot truncate {} tokens to {}", length_, length);
  length_ = length;
}

MutTensorRef KvCache::keys(int64_t layer, int64_t first, int64_t count) {
  return layers_[static_cast<size_t>(layer)].keys.ref().narrow(1, first, count);
}

MutTensorRef KvCache::values(int64_t layer, int64_t first, int64_t count) {
  return layers_[static_cast<size_t>(layer)].values.ref().narrow(1, first, count);
}

}  // namespace coca::infer

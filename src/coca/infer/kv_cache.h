// coca/infer/kv_cache.h - what decoding remembers: un-rotated keys and values of every layer.
// CoCA keeps the folded t, half as wide as a key (D/2 + D numbers per head and token instead of 2 D). Because nothing
// is rotated in the cache, the base of dynamic NTK may change at every step and the keys stay right.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "coca/model/spec.h"
#include "coca/tensor/tensor.h"

namespace coca::infer {

class KvCache {
 public:
  KvCache(const model::ModelSpec&, int64_t B, int64_t capacity);

  int64_t batch() const { return B_; }
  int64_t length() const { return length_; }
  int64_t capacity() const { return capacity_; }
  size_t bytes() const;
  // Makes room for `tokens` in all (at least doubling, so that growth costs O(1) copies per token).
  void reserve(int64_t tokens);
  // Marks n appended tokens as present, after every layer has written its part.
  void advance(int64_t n) { length_ += n; }
  void truncate(int64_t length);

  // Tokens [first, first + count) of one layer: keys [B, count, G, D/2 (CoCA) or D], values [B, count, G, D].
  MutTensorRef keys(int64_t layer, int64_t first, int64_t count);
  MutTensorRef values(int64_t layer, int64_t first, int64_t count);

 private:
  struct Layer {
    Tensor keys, values;
  };
  int64_t B_, G_, key_width_, D_, capacity_ = 0, length_ = 0;
  std::vector<Layer> layers_;
};

}  // namespace coca::infer

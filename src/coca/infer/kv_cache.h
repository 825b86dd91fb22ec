// coca/infer/kv_cache.h - the cache of one sequence: keys before rotation and values of every layer, in pages.
// CoCA keeps the folded t, half as wide as a key (D/2 + D numbers per head and token instead of 2 D). Because nothing
// is rotated in the cache, the base of dynamic NTK may change at every step and the keys stay right.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/model/spec.h"
#include "coca/ops/kv_store.h"

namespace coca::infer {

// Pages for sequences of this model; at most most_pages in use at a time (0: no limit).
KvPool kv_pool(const model::ModelSpec&, KvType = KvType::kF32, int64_t most_pages = 0);

class KvCache {
 public:
  // Empty; pages are taken from the pool as tokens come. A copy has the same tokens and shares their pages.
  explicit KvCache(const KvPool& pool) : pages_(pool) {}

  int64_t length() const { return length_; }        // tokens so far, the forgotten ones included
  int64_t forgotten() const { return forgotten_; }  // of them: those after the first page that were dropped
  int64_t held() const { return length_ - forgotten_; }
  int64_t capacity() const { return pages_.capacity(); }
  KvType type() const { return pages_.layout().type; }
  size_t bytes() const { return pages_.bytes(); }  // of its pages, shared ones included
  // Takes pages for `tokens` held in all; nothing is copied.
  void reserve(int64_t tokens) { pages_.reserve(tokens); }
  // Whole pages of tokens before `token` are reused; the first page, which holds the first tokens, stays. Tokens after
  // them move up: token n > 255 is then held at n - forgotten().
  void forget_before(int64_t token);
  // For kv_store: keys [1, N, G, D/2 (CoCA: the folded t) or D] and values [1, N, G, D] become the tokens from `first`
  // on of one layer, counted as they are held; they must be reserved. Shared pages that this touches are copied here.
  ops::KvStore store(int64_t layer, int64_t first, TensorRef keys, TensorRef values);
  // Marks n appended tokens as present, after every layer has written its part.
  void advance(int64_t n) { length_ += n; }
  void truncate(int64_t length);  // gives back pages behind it

  // The first `tokens` held of one layer, for decode attention.
  KvView view(int64_t layer, int64_t tokens) const { return pages_.view(layer, tokens); }

 private:
  int64_t length_ = 0, forgotten_ = 0;
  KvPages pages_;
};

}  // namespace coca::infer

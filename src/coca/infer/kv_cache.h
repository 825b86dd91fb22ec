// coca/infer/kv_cache.h - the cache of one sequence: un-rotated keys and values of every layer, in pages. CoCA stores
// the folded t, which is half as wide as a key (D/2 + D numbers per head and token instead of 2 D). Since nothing in
// the cache is rotated, dynamic NTK may change its base at every step.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/model/spec.h"
#include "coca/ops/kv_store.h"

namespace coca::infer {

// Pages for sequences of this model, with at most most_pages in use at a time (0: no limit), in this memory (null: the
// host's).
KvPool kv_pool(const model::ModelSpec&, KvType = KvType::kF32, int64_t most_pages = 0, DeviceMemory* = nullptr);

class KvCache {
 public:
  // Empty. Pages are taken from the pool as tokens are appended. A copy has the same tokens and shares their pages.
  explicit KvCache(const KvPool& pool) : pages_(pool) {}

  int64_t length() const { return length_; }        // tokens so far, including forgotten ones
  int64_t forgotten() const { return forgotten_; }  // tokens dropped after the first page
  int64_t held() const { return length_ - forgotten_; }
  int64_t capacity() const { return pages_.capacity(); }
  KvType type() const { return pages_.layout().type; }
  size_t bytes() const { return pages_.bytes(); }  // of its pages, including shared ones
  // Takes pages for `tokens` held in total, without copying.
  void reserve(int64_t tokens) { pages_.reserve(tokens); }
  // Reuses pages whose tokens all precede `token`, except the first page, which holds the first tokens. Later tokens
  // move up: token n > 255 is then held at n - forgotten().
  void forget_before(int64_t token);
  // Arguments for kv_store that write keys [1, N, G, D/2 (CoCA: the folded t) or D] and values [1, N, G, D] to one
  // layer, from token `first` on, counted as held. The tokens must be reserved. Shared pages among them are copied
  // here.
  ops::KvStore store(int64_t layer, int64_t first, TensorRef keys, TensorRef values);
  // Counts n appended tokens, after every layer has stored them.
  void advance(int64_t n) { length_ += n; }
  void truncate(int64_t length);  // releases the pages beyond `length`

  // The first `tokens` held in one layer, for decode attention.
  KvView view(int64_t layer, int64_t tokens) const { return pages_.view(layer, tokens); }

 private:
  int64_t length_ = 0, forgotten_ = 0;
  KvPages pages_;
};

}  // namespace coca::infer

// SPDX-License-Identifier: Apache-2.0
#include "coca/tensor/kv_pages.h"

#include <algorithm>

namespace coca {

KvPages::KvPages(const KvLayout& layout, int64_t layers) : layout_(layout), layers_(layers) {
  COCA_CHECK(layers >= 1 && layout.B >= 1 && layout.G >= 1 && layout.W >= 1 && layout.D >= 1,
             "[kv_pages] layers {}, batch {}, kv heads {}, key width {} and value width {} must be positive", layers,
             layout.B, layout.G, layout.W, layout.D);
}

size_t KvPages::page_bytes() const {
  return static_cast<size_t>(layers_) * layout_.layer_bytes() + (layout_.D % 16 == 0 ? 0 : 64);
}

void KvPages::reserve(int64_t tokens) {
  while (capacity() < tokens) {
    pages_.push_back(allocate(page_bytes(), "keys and values of 256 tokens"));
    starts_.push_back(pages_.back().get());
  }
}

void KvPages::recycle(int64_t first, int64_t count) {
  COCA_CHECK(first >= 0 && count >= 0 && first + count <= static_cast<int64_t>(pages_.size()),
             "[kv_pages] there are no pages {} to {} of {}", first, first + count, pages_.size());
  std::rotate(pages_.begin() + first, pages_.begin() + first + count, pages_.end());
  std::rotate(starts_.begin() + first, starts_.begin() + first + count, starts_.end());
}

KvView KvPages::view(int64_t layer, int64_t length) const {
  COCA_CHECK(layer >= 0 && layer < layers_, "[kv_pages] there is no layer {} of {}", layer, layers_);
  COCA_CHECK(length >= 0 && length <= capacity(), "[kv_pages] {} tokens do not fit {}", length, capacity());
  return {layout_, starts_.data(), static_cast<size_t>(layer) * layout_.layer_bytes(), length};
}

MutKvView KvPages::mut_view(int64_t layer, int64_t length) {
  const KvView v = view(layer, length);
  return {v.layout, v.pages, v.offset, v.length};
}

}  // namespace coca

// SPDX-License-Identifier: Apache-2.0
#include "coca/tensor/kv_pages.h"

namespace coca {

KvPages::KvPages(const KvLayout& layout) : layout_(layout) {
  COCA_CHECK(layout.B >= 1 && layout.G >= 1 && layout.W >= 1 && layout.D >= 1,
             "[kv_pages] batch {}, kv heads {}, key width {} and value width {} must be positive", layout.B, layout.G,
             layout.W, layout.D);
}

void KvPages::reserve(int64_t tokens) {
  while (capacity() < tokens) {
    pages_.push_back(allocate_aligned(layout_.page_bytes()));
    starts_.push_back(pages_.back().get());
  }
}

KvView KvPages::view(int64_t length) const {
  COCA_CHECK(length >= 0 && length <= capacity(), "[kv_pages] {} tokens do not fit {}", length, capacity());
  return {layout_, starts_.data(), length};
}

MutKvView KvPages::mut_view(int64_t length) {
  const KvView v = view(length);
  return {v.layout, v.pages, v.length};
}

}  // namespace coca

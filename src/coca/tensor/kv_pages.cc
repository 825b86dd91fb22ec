// SPDX-License-Identifier: Apache-2.0
#include "coca/tensor/kv_pages.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <mutex>
#include <utility>

namespace coca {

class KvPool::Memory : public std::enable_shared_from_this<KvPool::Memory> {
 public:
  Memory(size_t page_bytes, int64_t most, DeviceMemory* device)
      : page_bytes_(page_bytes), most_(most), device_(device) {}

  Page take() {
    const std::lock_guard lock(mutex_);
    COCA_CHECK(most_ == 0 || in_use_ < most_, "[kv_pages] all {} pages of the cache ({} tokens) are in use", most_,
               most_ * kKvPage);
    if (free_.empty()) {
      free_.reserve(static_cast<size_t>(in_use_) + 1);  // so that releasing a page cannot fail
      free_.push_back(
          allocate(device_, page_bytes_,
                   "keys and values of 256 tokens (fewer or shorter sequences need less, or a cache in bf16 or int8)"));
    }
    ++in_use_;
    std::byte* data = free_.back().release();
    free_.pop_back();
    return {data, [owner = shared_from_this()](std::byte* page) { owner->give_back(page); }};
  }
  int64_t in_use() const {
    const std::lock_guard lock(mutex_);
    return in_use_;
  }
  int64_t allocated() const {
    const std::lock_guard lock(mutex_);
    return in_use_ + static_cast<int64_t>(free_.size());
  }

 private:
  void give_back(std::byte* page) {
    const std::lock_guard lock(mutex_);
    free_.push_back(Buffer(page, BufferDeleter{.memory = device_}));
    --in_use_;
  }

  const size_t page_bytes_;
  const int64_t most_;
  DeviceMemory* const device_;
  mutable std::mutex mutex_;
  std::vector<Buffer> free_;
  int64_t in_use_ = 0;
};

KvPool::KvPool(const KvLayout& layout, int64_t layers, int64_t most_pages, DeviceMemory* device)
    : layout_(layout), layers_(layers), device_(device) {
  COCA_CHECK(layers >= 1 && layout.G >= 1 && layout.W >= 1 && layout.D >= 1,
             "[kv_pages] layers {}, kv heads {}, key width {} and value width {} must be positive", layers, layout.G,
             layout.W, layout.D);
  COCA_CHECK(most_pages >= 0, "[kv_pages] a limit of {} pages must be positive, or 0 for none", most_pages);
  memory_ = std::make_shared<Memory>(page_bytes(), most_pages, device);
}

size_t KvPool::page_bytes() const {
  return static_cast<size_t>(layers_) * layout_.layer_bytes() + (layout_.D % 16 == 0 ? 0 : 64);
}

KvPool::Page KvPool::take() const { return memory_->take(); }
int64_t KvPool::in_use() const { return memory_->in_use(); }
int64_t KvPool::allocated() const { return memory_->allocated(); }

void KvPages::reserve(int64_t tokens) {
  while (capacity() < tokens) {
    pages_.push_back(pool_.take());
    starts_.push_back(pages_.back().get());
  }
}

void KvPages::truncate(int64_t tokens) {
  COCA_CHECK(tokens >= 0, "[kv_pages] cannot keep {} tokens", tokens);
  const auto pages = std::min(pages_.size(), static_cast<size_t>((tokens + kKvPage - 1) / kKvPage));
  pages_.resize(pages);
  starts_.resize(pages);
}

void KvPages::recycle(int64_t first, int64_t count) {
  COCA_CHECK(first >= 0 && count >= 0 && first + count <= static_cast<int64_t>(pages_.size()),
             "[kv_pages] there are no pages {} to {} of {}", first, first + count, pages_.size());
  const auto begin = pages_.begin() + first, end = begin + count;
  std::vector<KvPool::Page> own;
  std::copy_if(std::make_move_iterator(begin), std::make_move_iterator(end), std::back_inserter(own),
               [](const KvPool::Page& page) { return page.use_count() == 1; });
  pages_.erase(begin, end);
  pages_.insert(pages_.end(), std::make_move_iterator(own.begin()), std::make_move_iterator(own.end()));
  starts_.resize(pages_.size());
  std::ranges::transform(pages_, starts_.begin(), &KvPool::Page::get);
}

KvView KvPages::view(int64_t layer, int64_t length) const {
  COCA_CHECK(layer >= 0 && layer < pool_.layers(), "[kv_pages] there is no layer {} of {}", layer, pool_.layers());
  COCA_CHECK(length >= 0 && length <= capacity(), "[kv_pages] {} tokens requested; expected 0 to {}", length,
             capacity());
  return {layout(), starts_.data(), static_cast<size_t>(layer) * layout().layer_bytes(), length,
          pool_.device() ? pool_.device()->device() : Device{}};
}

MutKvView KvPages::mut_view(int64_t layer, int64_t first, int64_t length) {
  const KvView v = view(layer, length);
  for (auto page = static_cast<size_t>(first / kKvPage); page < pages_.size(); ++page) {
    if (pages_[page].use_count() == 1) continue;
    KvPool::Page own = pool_.take();
    if (pool_.device())
      pool_.device()->copy(own.get(), pages_[page].get(), pool_.page_bytes());
    else
      std::memcpy(own.get(), pages_[page].get(), pool_.page_bytes());
    pages_[page] = std::move(own);
    starts_[page] = pages_[page].get();
  }
  return {v.layout, v.pages, v.offset, v.length, v.device};
}

}  // namespace coca

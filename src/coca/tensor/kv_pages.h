// coca/tensor/kv_pages.h - keys and values in pages of 256 tokens, laid out for decode attention. A page belongs to a
// sequence and holds all layers and kv heads; growth adds pages and copies nothing. Sequences with the same beginning
// may share pages: writing to a shared page copies it first.
// Each layer and kv head has one contiguous run of memory in a page, in the order in which attention reads it:
//   keys [4, W, 64]: tiles of 64 tokens, transposed, so that 64 scores are computed without sums across lanes; kv_lane
//     gives the order of a tile's tokens
//   values [256, D]
//   with int8: key scales [256] f32, value scales [256] f32
// Kernels read values in whole vectors and may read up to 60 bytes after the last row; pages have room for that.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "coca/base/enum_names.h"
#include "coca/tensor/tensor.h"

namespace coca {

inline constexpr int64_t kKvTile = 64;   // tokens
inline constexpr int64_t kKvPage = 256;  // tokens

// The place of token n among the 64 of its tile. The first half is stored backwards, so that vectors of both halves are
// at the same distance from the middle of the tile and share cosines and sines.
constexpr int64_t kv_lane(int64_t n) { return n < kKvTile / 2 ? kKvTile / 2 - 1 - n : n; }

enum class KvType : uint8_t { kF32, kBF16, kInt8 };
enum class KeySign : uint8_t { kSigned, kNonNegative };  // int8: -127..127, or 0..255 for CoCA's folded t

// int8: a number is its integer times a scale; each token and kv head has one scale for the key and one for the value.
struct KvLayout {
  KvType type = KvType::kF32;
  KeySign key_sign = KeySign::kSigned;
  int64_t G = 0, W = 0, D = 0;  // kv heads, numbers per key, numbers per value

  constexpr size_t element_bytes() const { return type == KvType::kF32 ? 4 : type == KvType::kBF16 ? 2 : 1; }
  constexpr size_t scale_bytes() const { return type == KvType::kInt8 ? 2 * sizeof(float) : 0; }
  constexpr size_t head_bytes() const {
    return static_cast<size_t>(W + D) * element_bytes() + scale_bytes();
  }  // of one token
  constexpr size_t run_bytes() const { return static_cast<size_t>(kKvPage) * head_bytes(); }
  constexpr size_t layer_bytes() const { return static_cast<size_t>(G) * run_bytes(); }  // of one page
  // The place of lane l in a tile's row. bf16: lanes l and l + 32 share 32 bits, so that one operation each widens
  // them.
  constexpr int64_t key_element(int64_t lane) const {
    constexpr int64_t kHalf = kKvTile / 2;
    return type == KvType::kBF16 ? lane % kHalf * 2 + lane / kHalf : lane;
  }
  // Offsets in a run, for token n of the page: of its key's first number (the next ones are 64 elements apart), and its
  // value.
  constexpr size_t key_tile_at(int64_t tile) const { return static_cast<size_t>(tile * W * kKvTile) * element_bytes(); }
  constexpr size_t key_at(int64_t n) const {
    return key_tile_at(n / kKvTile) + static_cast<size_t>(key_element(kv_lane(n % kKvTile))) * element_bytes();
  }
  constexpr size_t value_at(int64_t n) const { return static_cast<size_t>(kKvPage * W + n * D) * element_bytes(); }
  constexpr size_t key_scale_at(int64_t n) const { return value_at(kKvPage) + static_cast<size_t>(n) * sizeof(float); }
  constexpr size_t value_scale_at(int64_t n) const { return key_scale_at(kKvPage + n); }

  friend bool operator==(const KvLayout&, const KvLayout&) = default;
};

// The first `length` tokens of a sequence in one layer; it does not own the pages. Byte is std::byte or const
// std::byte.
template <typename Byte>
struct BasicKvView {
  KvLayout layout;
  std::byte* const* pages = nullptr;
  size_t offset = 0;  // of the layer in each page
  int64_t length = 0;
  Device device = {};  // where the pages are; the list of pages is on the host

  // The run of kv head g in the page of this token.
  Byte* run(int64_t g, int64_t token) const {
    return pages[token / kKvPage] + offset + static_cast<size_t>(g) * layout.run_bytes();
  }
};
using KvView = BasicKvView<const std::byte>;
using MutKvView = BasicKvView<std::byte>;

// Provides pages to sequences. Pages that no sequence holds any more are reused. Several threads may use a pool of host
// memory, one thread a pool of device memory; pages may outlive their pool.
class KvPool {
 public:
  using Page = std::shared_ptr<std::byte>;  // zeros, or the contents of an earlier sequence

  // most_pages: limit on the pages in use at a time; 0: no limit. `device`: where the pages are allocated; null: on the
  // host.
  KvPool(const KvLayout&, int64_t layers, int64_t most_pages = 0, DeviceMemory* device = nullptr);
  const KvLayout& layout() const { return layout_; }
  int64_t layers() const { return layers_; }
  DeviceMemory* device() const { return device_; }  // null: the host
  size_t page_bytes() const;
  // Throws if the limit is reached or memory runs out.
  Page take() const;
  int64_t in_use() const;
  int64_t allocated() const;  // in use or kept for reuse

 private:
  class Memory;
  KvLayout layout_;
  int64_t layers_;
  DeviceMemory* device_;
  std::shared_ptr<Memory> memory_;
};

// The pages of one sequence. A copy shares them. Views use the layout and number of layers of the pool.
class KvPages {
 public:
  explicit KvPages(const KvPool& pool) : pool_(pool) {}
  const KvLayout& layout() const { return pool_.layout(); }
  int64_t capacity() const { return static_cast<int64_t>(pages_.size()) * kKvPage; }
  size_t bytes() const { return pages_.size() * pool_.page_bytes(); }  // including shared pages
  void reserve(int64_t tokens);                                        // takes pages from the pool
  // Releases pages that hold none of the first `tokens`.
  void truncate(int64_t tokens);
  // Drops pages [first, first + count); the tokens after them move up. Pages that are not shared are appended again for
  // new tokens.
  void recycle(int64_t first, int64_t count);
  KvView view(int64_t layer, int64_t length) const;
  // For writing from token `first` on. Shared pages that hold such tokens are copied first.
  MutKvView mut_view(int64_t layer, int64_t first, int64_t length);

 private:
  KvPool pool_;
  std::vector<KvPool::Page> pages_;
  std::vector<std::byte*> starts_;  // of pages_, in the form that views use
};

}  // namespace coca

COCA_ENUM_NAMES(coca::KvType, "cache", {coca::KvType::kF32, "f32"}, {coca::KvType::kBF16, "bf16"},
                {coca::KvType::kInt8, "int8"})

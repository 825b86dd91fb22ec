// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <span>
#include <vector>

#include "coca/base/parallel.h"
#include "coca/kernels/args/blocks.h"
#include "coca/kernels/cpu/rows.h"
#include "coca/kernels/ref/kv_store.h"

namespace coca::cpu {

namespace {

// One head of a strided tensor as floats.
class HeadReader {
 public:
  explicit HeadReader(TensorRef t) : t_(t) {}
  std::span<const float> head(int64_t n, int64_t g, std::vector<float>& buffer) const {
    const int64_t at = n * t_.stride(1) + g * t_.stride(2);
    const auto width = static_cast<size_t>(t_.size(3));
    if (t_.dtype == DType::kF32) return {static_cast<const float*>(t_.data) + at, width};
    const auto* p = static_cast<const BF16*>(t_.data) + at;
    buffer.assign(width, 0.0f);
    for (size_t i = 0; i < width; ++i) buffer[i] = static_cast<float>(p[i]);
    return buffer;
  }

 private:
  TensorRef t_;
};

// The rows of one sequence that go into one tile, for kv head g.
void store_tile(const ops::KvStore& a, int64_t g, int64_t tile, std::vector<float>& buffer) {
  const KvLayout& l = a.cache.layout;
  const HeadReader keys(a.keys), values(a.values);
  std::byte* run = a.cache.run(g, tile * kKvTile);
  const int64_t stop = std::min(a.first + a.keys.size(1), (tile + 1) * kKvTile);
  for (int64_t token = std::max(a.first, tile * kKvTile); token < stop; ++token) {
    const int64_t n = token - a.first, at = token % kKvPage;
    ref::write_head(l.type, keys.head(n, g, buffer), ref::key_slot(l, run, at));
    ref::write_head(l.type, values.head(n, g, buffer), ref::value_slot(l, run, at));
  }
}

void store(Context&, std::span<const ops::KvStore> sequences) {
  const KvLayout& l = sequences[0].cache.layout;
  // Tasks are whole tiles of one sequence and kv head: a line of memory has one writer. ends[i]: the tasks of sequences
  // up to i.
  std::vector<int64_t> ends;
  int64_t tokens = 0;
  for (const ops::KvStore& a : sequences) {
    const int64_t N = a.keys.size(1), tiles = N == 0 ? 0 : (a.first + N - 1) / kKvTile - a.first / kKvTile + 1;
    ends.push_back((ends.empty() ? 0 : ends.back()) + l.G * tiles);
    tokens = std::max(tokens, N);
  }
  parallel_blocks(ends.back(), ops::grain_of(std::min(tokens, kKvTile) * (l.W + l.D)), [&](int64_t begin, int64_t end) {
    std::vector<float> buffer;
    for (int64_t task = begin; task < end; ++task) {
      const auto i = std::ranges::upper_bound(ends, task) - ends.begin();
      const ops::KvStore& a = sequences[static_cast<size_t>(i)];
      const int64_t before = i == 0 ? 0 : ends[static_cast<size_t>(i - 1)],
                    tiles = (ends[static_cast<size_t>(i)] - before) / l.G;
      store_tile(a, (task - before) / tiles, a.first / kKvTile + (task - before) % tiles, buffer);
    }
  });
}

void load(Context&, const ops::KvLoad& a) {
  const KvLayout& l = a.cache.layout;
  const MutTensorRef& given = a.keys.empty() ? a.values : a.keys;
  parallel_blocks(given.size(1), ops::grain_of(l.G * (l.W + l.D)), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      for (int64_t g = 0; g < l.G; ++g) {
        const int64_t token = a.first + n, at = token % kKvPage;
        auto* run = const_cast<std::byte*>(a.cache.run(g, token));  // slots serve both ways; only read here
        const int64_t head = n * l.G + g;
        if (!a.keys.empty())
          ref::read_head(l.type, ref::key_slot(l, run, at),
                         {a.keys.as<float>() + head * l.W, static_cast<size_t>(l.W)});
        if (!a.values.empty())
          ref::read_head(l.type, ref::value_slot(l, run, at),
                         {a.values.as<float>() + head * l.D, static_cast<size_t>(l.D)});
      }
  });
}

}  // namespace

const ops::KvStoreImpl kv_store_row{.name = "cpu", .run = {store, load}};

}  // namespace coca::cpu

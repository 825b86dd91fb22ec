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
  std::span<const float> head(int64_t b, int64_t n, int64_t g, std::vector<float>& buffer) const {
    const int64_t at = b * t_.stride(0) + n * t_.stride(1) + g * t_.stride(2);
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

void store(Context&, const ops::KvStore& a) {
  const KvLayout& l = a.cache.layout;
  const int64_t N = a.keys.size(1);
  const HeadReader keys(a.keys), values(a.values);
  // Tasks are whole tiles of one (b, g): a line of memory has one writer.
  const int64_t first_tile = a.first / kKvTile, tiles = N == 0 ? 0 : (a.first + N - 1) / kKvTile - first_tile + 1;
  parallel_blocks(l.B * l.G * tiles, ops::grain_of(std::min(N, kKvTile) * (l.W + l.D)),
                  [&](int64_t begin, int64_t end) {
                    std::vector<float> buffer;
                    for (int64_t task = begin; task < end; ++task) {
                      const int64_t b = task / (l.G * tiles), g = task / tiles % l.G, t = first_tile + task % tiles;
                      std::byte* run = a.cache.run(b, g, t * kKvTile);
                      const int64_t stop = std::min(a.first + N, (t + 1) * kKvTile);
                      for (int64_t token = std::max(a.first, t * kKvTile); token < stop; ++token) {
                        const int64_t n = token - a.first, at = token % kKvPage;
                        ref::write_head(l.type, keys.head(b, n, g, buffer), ref::key_slot(l, run, at));
                        ref::write_head(l.type, values.head(b, n, g, buffer), ref::value_slot(l, run, at));
                      }
                    }
                  });
}

void load(Context&, const ops::KvLoad& a) {
  const KvLayout& l = a.cache.layout;
  const MutTensorRef& given = a.keys.empty() ? a.values : a.keys;
  const int64_t N = given.size(1);
  parallel_blocks(l.B * N, ops::grain_of(l.G * (l.W + l.D)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t g = 0; g < l.G; ++g) {
        const int64_t token = a.first + row % N, at = token % kKvPage;
        auto* run = const_cast<std::byte*>(a.cache.run(row / N, g, token));  // slots serve both ways; only read here
        const int64_t head = row * l.G + g;
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

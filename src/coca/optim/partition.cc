// SPDX-License-Identifier: Apache-2.0
#include "coca/optim/partition.h"

#include <algorithm>

#include "coca/base/error.h"

namespace coca::optim {

int64_t total_size(const std::vector<Range>& ranges) {
  int64_t total = 0;
  for (const Range& range : ranges) total += range.size();
  return total;
}

Partition::Partition(int64_t size)
    : size_(size), ranks_(1), owned_(1, std::vector<std::vector<Range>>(1, {Range{0, size}})) {}

Partition::Partition(int64_t size, const std::vector<int>& tile_bucket, int buckets, int ranks)
    : size_(size),
      ranks_(ranks),
      owned_(static_cast<size_t>(buckets), std::vector<std::vector<Range>>(static_cast<size_t>(ranks))) {
  const auto tiles = static_cast<int64_t>(tile_bucket.size());
  COCA_CHECK_AS(kInternal, tiles == (size + kTile - 1) / kTile && ranks >= 1,
                "[partition] {} tiles of {} floats, {} ranks", tiles, size, ranks);
  std::vector<int64_t> left(static_cast<size_t>(buckets), 0), seen(static_cast<size_t>(buckets), 0);
  for (const int bucket : tile_bucket) ++left[static_cast<size_t>(bucket)];
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const auto bucket = static_cast<size_t>(tile_bucket[static_cast<size_t>(tile)]);
    const auto rank = static_cast<size_t>(seen[bucket]++ * ranks / left[bucket]);
    const Range range{tile * kTile, std::min((tile + 1) * kTile, size)};
    std::vector<Range>& ranges = owned_[bucket][rank];
    if (!ranges.empty() && ranges.back().end == range.begin)
      ranges.back().end = range.end;
    else
      ranges.push_back(range);
  }
}

std::vector<Range> Partition::of(int rank) const {
  std::vector<Range> all;
  for (const auto& bucket : owned_)
    all.insert(all.end(), bucket[static_cast<size_t>(rank)].begin(), bucket[static_cast<size_t>(rank)].end());
  return all;
}

}  // namespace coca::optim

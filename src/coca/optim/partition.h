// coca/optim/partition.h - which floats of a flat vector (model/params.h) belong to which rank, bucket by bucket. A
// bucket holds the gradients that are complete at the same moment of the backward pass. Each bucket is divided equally,
// so that all ranks work on it. Parts consist of whole tiles, so sums over tiles have the same bits for any number of
// ranks.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace coca::optim {

struct Range {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};
int64_t total_size(const std::vector<Range>&);

class Partition {
 public:
  static constexpr int64_t kTile = 1024;  // floats

  // A vector of `size` floats in one bucket, all owned by one rank.
  explicit Partition(int64_t size);
  // `tile_bucket` gives each tile's bucket, 0 to buckets - 1; the last tile may be shorter.
  Partition(int64_t size, const std::vector<int>& tile_bucket, int buckets, int ranks);

  int64_t size() const { return size_; }
  int ranks() const { return ranks_; }
  int buckets() const { return static_cast<int>(owned_.size()); }
  // Ranges in ascending order.
  const std::vector<Range>& of(int bucket, int rank) const {
    return owned_[static_cast<size_t>(bucket)][static_cast<size_t>(rank)];
  }
  // The ranges of all buckets, one bucket after the other: the order in which a rank packs what it owns.
  std::vector<Range> of(int rank) const;

 private:
  int64_t size_;
  int ranks_;
  std::vector<std::vector<std::vector<Range>>> owned_;  // [bucket][rank]
};

}  // namespace coca::optim

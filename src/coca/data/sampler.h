// coca/data/sampler.h - training windows in random order, as a pure function of (file, length, seed, k).
// An epoch cuts the file, from a random phase on, into windows whose inputs do not overlap and visits each
// once.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "coca/data/token_file.h"

namespace coca::data {

// A permutation of {0, ..., n-1} without a table: a Feistel network over the next power of four, applied until
// the value is below n. Equal (n, key) give the same permutation everywhere.
uint64_t permute_index(uint64_t index, uint64_t n, uint64_t key);

class WindowSampler {
 public:
  // length inputs and their targets take length + 1 tokens; a shorter file is an Error. The file must outlive
  // this.
  WindowSampler(const TokenFile& file, int64_t length, uint64_t seed);

  void window(int64_t k, std::span<int32_t> out) const;  // k >= 0, out.size() == length + 1
  int64_t window_start(int64_t k) const;                 // token position of the k-th window
  int64_t windows_per_epoch() const { return per_epoch_; }
  int64_t length() const { return length_; }

 private:
  const TokenFile* file_;
  int64_t length_, per_epoch_, phases_;
  uint64_t seed_;
};

}  // namespace coca::data

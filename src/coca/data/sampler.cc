// coca/data/sampler.cc - see sampler.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/data/sampler.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/base/rng.h"

namespace coca::data {

uint64_t permute_index(uint64_t index, uint64_t n, uint64_t key) {
  COCA_CHECK(index < n && n <= uint64_t{1} << 62, "permute_index({}) of {}", index, n);
  if (n == 1) return 0;
  constexpr int kRounds = 8;  // small domains need more rounds than the textbook's four to look random
  const int half = (std::bit_width(n - 1) + 1) / 2;
  const uint64_t mask = (uint64_t{1} << half) - 1;
  // The domain 4^half is below 4 n, so that the walk takes fewer than four steps on average. It ends: it
  // follows a cycle of a permutation that contains index < n.
  do {
    uint64_t left = index >> half, right = index & mask;
    for (int round = 0; round < kRounds; ++round) {
      const uint64_t mixed = mix64(key ^ mix64(right ^ (static_cast<uint64_t>(round) << 56)));
      left = std::exchange(right, left ^ (mixed & mask));
    }
    index = left << half | right;
  } while (index >= n);
  return index;
}

namespace {

uint64_t epoch_key(uint64_t seed, uint64_t epoch) { return mix64(seed ^ mix64(epoch ^ 0x5a3b1e57d0c5eed5ull)); }

}  // namespace

WindowSampler::WindowSampler(const TokenFile& file, int64_t length, uint64_t seed)
    : file_(&file), length_(length), seed_(seed) {
  COCA_CHECK(length >= 1, "window length is {}; expected 1 or more", length);
  COCA_CHECK(file.size() > length, "corpus of {} is shorter than one window of {} (length {} and one target)",
             counted(file.size(), "token"), length + 1, length);
  // Every epoch has the same number of windows, so that k alone tells the epoch. All phases 0..length-1 are
  // used where the file is long enough to keep that number under the largest.
  const int64_t inputs = file.size() - 1;
  per_epoch_ = std::max<int64_t>(1, (inputs - (length - 1)) / length);
  phases_ = std::min(length, inputs - per_epoch_ * length + 1);
}

int64_t WindowSampler::window_start(int64_t k) const {
  COCA_CHECK(k >= 0, "window {}; expected 0 or more", k);
  const uint64_t epoch = static_cast<uint64_t>(k / per_epoch_), index = static_cast<uint64_t>(k % per_epoch_);
  const uint64_t key = epoch_key(seed_, epoch);
  const int64_t phase = static_cast<int64_t>(Rng(key, 1).below(static_cast<uint64_t>(phases_)));
  return phase + length_ * static_cast<int64_t>(permute_index(index, static_cast<uint64_t>(per_epoch_), key));
}

void WindowSampler::window(int64_t k, std::span<int32_t> out) const {
  COCA_CHECK(static_cast<int64_t>(out.size()) == length_ + 1, "window buffer of {}; expected {}",
             counted(out.size(), "id"), length_ + 1);
  file_->read(window_start(k), out);
}

}  // namespace coca::data

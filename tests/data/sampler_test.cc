// SPDX-License-Identifier: Apache-2.0
#include "coca/data/sampler.h"

#include <cmath>
#include <numeric>
#include <set>

#include "support/temp_dir.h"

namespace coca::data::sampler_test {
namespace {

using test::error_of;
using ::testing::AllOf;
using ::testing::HasSubstr;

TokenFile counting_file(int64_t tokens) {
  std::vector<int32_t> ids(static_cast<size_t>(tokens));
  std::iota(ids.begin(), ids.end(), 0);
  return TokenFile::from_tokens(std::move(ids), {0, tokens}, tokens + 1);
}

TEST(PermuteIndex, IsAPermutationForEverySize) {
  for (uint64_t n = 1; n <= 300; ++n)
    for (uint64_t key : {0ull, 1ull, 0xdeadbeefull}) {
      std::set<uint64_t> seen;
      for (uint64_t i = 0; i < n; ++i) seen.insert(permute_index(i, n, key));
      ASSERT_EQ(seen.size(), n);
      ASSERT_LT(*seen.rbegin(), n);
    }
  error_of(ErrorKind::kInvalidArgument, [] { permute_index(5, 5, 0); });
  EXPECT_LT(permute_index(12345, uint64_t{1} << 62, 7), uint64_t{1} << 62);
}

// Over many keys each index should land everywhere equally often. Chi-square with n - 1 degrees of freedom has a
// standard deviation of sqrt(2 (n - 1)); six of them are allowed.
TEST(PermuteIndex, LooksRandom) {
  for (const uint64_t n : {2ull, 3ull, 7ull, 16ull, 50ull})
    for (const uint64_t index : {uint64_t{0}, n - 1}) {
      const double expected = 1000;
      std::vector<double> counts(n);
      for (uint64_t key = 0; key < 1000 * n; ++key) counts[permute_index(index, n, key)] += 1;
      double chi = 0;
      for (const double count : counts) chi += (count - expected) * (count - expected) / expected;
      const double freedom = static_cast<double>(n) - 1;
      EXPECT_LT(chi, freedom + 6 * std::sqrt(2 * freedom)) << n << " " << index;
    }
}

TEST(WindowSampler, EachWindowOncePerEpochWithoutOverlap) {
  for (const int64_t tokens : {9, 10, 16, 17, 100, 1000, 1003})
    for (const int64_t length : {1, 2, 7, 8}) {
      const TokenFile file = counting_file(tokens);
      const WindowSampler sampler(file, length, 42);
      const int64_t per_epoch = sampler.windows_per_epoch();
      // The random phase costs at most one window.
      ASSERT_GE(per_epoch, std::max<int64_t>(1, (tokens - 1) / length - 1));
      for (int64_t epoch = 0; epoch < 4; ++epoch) {
        std::set<int64_t> starts;
        for (int64_t k = epoch * per_epoch; k < (epoch + 1) * per_epoch; ++k) {
          std::vector<int32_t> window(static_cast<size_t>(length + 1));
          sampler.window(k, window);
          ASSERT_TRUE(starts.insert(window.front()).second) << "visited twice";
          for (int64_t i = 0; i <= length; ++i) ASSERT_EQ(window[static_cast<size_t>(i)], window.front() + i);
        }
        ASSERT_EQ(static_cast<int64_t>(starts.size()), per_epoch);
        ASSERT_EQ(*starts.rbegin() - *starts.begin(), (per_epoch - 1) * length);
        ASSERT_LE(*starts.rbegin() + length, tokens - 1);
      }
    }
}

TEST(WindowSampler, IsAPureFunctionAndEpochsDiffer) {
  const TokenFile file = counting_file(1000);
  const WindowSampler a(file, 16, 1), b(file, 16, 1), c(file, 16, 2);
  const int64_t n = a.windows_per_epoch();
  int64_t same_seed_differs = 0, next_epoch_differs = 0;
  for (int64_t k = 2 * n - 1; k >= 0; --k) {
    ASSERT_EQ(a.window_start(k), b.window_start(k));
    same_seed_differs += a.window_start(k) != c.window_start(k);
    next_epoch_differs += a.window_start(k) != a.window_start(k + n);
  }
  EXPECT_GT(same_seed_differs, n);
  EXPECT_GT(next_epoch_differs, n);
  std::set<int64_t> phases;
  for (int64_t epoch = 0; epoch < 400; ++epoch) {
    int64_t least = 1000;
    for (int64_t k = 0; k < n; ++k) least = std::min(least, a.window_start(epoch * n + k));
    phases.insert(least);
  }
  EXPECT_EQ(phases.size(), 16u) << "every phase 0..15 must come up";
}

TEST(WindowSampler, NeverChanges) {  // saved runs resume by k, so the order must never change
  const TokenFile file = counting_file(1000);
  const WindowSampler sampler(file, 16, 1);
  std::vector<int64_t> starts;
  for (const int64_t k : {0, 1, 2, 61, 62, 100000}) starts.push_back(sampler.window_start(k));
  EXPECT_EQ(starts, (std::vector<int64_t>{497, 337, 833, 279, 935, 668}));
}

TEST(WindowSampler, Errors) {
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [] { WindowSampler s(counting_file(16), 16, 0); }),
              AllOf(HasSubstr("16 tokens"), HasSubstr("17")));
  const TokenFile file = counting_file(17);
  const WindowSampler one(file, 16, 0);
  EXPECT_EQ(one.windows_per_epoch(), 1);
  EXPECT_EQ(one.window_start(123), 0);
  error_of(ErrorKind::kInvalidArgument, [&] { one.window_start(-1); });
  std::vector<int32_t> small(16);
  error_of(ErrorKind::kInvalidArgument, [&] { one.window(0, small); });
  error_of(ErrorKind::kInvalidArgument, [&] { WindowSampler s(file, 0, 0); });
}

}  // namespace
}  // namespace coca::data::sampler_test

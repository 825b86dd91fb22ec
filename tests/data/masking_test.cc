// SPDX-License-Identifier: Apache-2.0
#include "coca/data/masking.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "coca/data/packing.h"

namespace coca::data::masking_test {
namespace {

constexpr int32_t kMask = 100, kVocabulary = 50;

TEST(Masking, FifteenPercentAndAtLeastOne) {
  EXPECT_EQ(chosen_tokens(1), 1);
  EXPECT_EQ(chosen_tokens(3), 1);
  EXPECT_EQ(chosen_tokens(20), 3);
  EXPECT_EQ(chosen_tokens(512), 77);
}

TEST(Masking, TargetsAreTheOriginalIdsAndTheRestIsUntouched) {
  std::vector<int32_t> ids(40), targets(40, 7);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  const std::vector<int32_t> before = ids;
  Rng rng(1);
  mask_window({.mask_id = kMask, .vocabulary = kVocabulary}, rng, ids, targets);
  int64_t chosen = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    chosen += targets[i] != kNoTarget;
    EXPECT_EQ(targets[i] == kNoTarget ? ids[i] : targets[i], before[i]) << i;
  }
  EXPECT_EQ(chosen, 6);
  std::vector<int32_t> again = before, same(40);
  Rng other(1);
  mask_window({.mask_id = kMask, .vocabulary = kVocabulary}, other, again, same);
  EXPECT_EQ(again, ids);
  EXPECT_EQ(same, targets);
}

// Over many windows every position is chosen equally often, and the chosen tokens are treated 80, 10 and 10 % of the
// time. Bounds are five standard deviations.
TEST(Masking, SharesAreThePublishedOnes) {
  constexpr int64_t kWindows = 20000, kLength = 20;
  std::vector<int64_t> places(kLength);
  int64_t masked = 0, kept = 0, random = 0;
  Rng rng(3);
  for (int64_t w = 0; w < kWindows; ++w) {
    std::vector<int32_t> ids(kLength, 60), targets(kLength);  // 60 is never drawn as a replacement
    mask_window({.mask_id = kMask, .vocabulary = kVocabulary}, rng, ids, targets);
    for (size_t i = 0; i < ids.size(); ++i) {
      if (targets[i] == kNoTarget) continue;
      ++places[i];
      masked += ids[i] == kMask;
      kept += ids[i] == 60;
      random += ids[i] < kVocabulary;
    }
  }
  const double chosen = 3.0 * kWindows;
  EXPECT_EQ(masked + kept + random, static_cast<int64_t>(chosen));
  const auto near = [](int64_t count, double n, double p) {
    EXPECT_NEAR(static_cast<double>(count), n * p, 5 * std::sqrt(n * p * (1 - p)));
  };
  near(masked, chosen, 0.8);
  near(kept, chosen, 0.1);
  near(random, chosen, 0.1);
  for (const int64_t count : places) near(count, kWindows, 0.15);
}

TEST(Masking, TheMaskTokenOfBytesIsTheFirstIdBeyondThem) {
  const auto bytes = text::make_byte_tokenizer();
  EXPECT_EQ(masked_tokens(*bytes).mask_id, 257);
  EXPECT_EQ(masked_tokens(*bytes).vocabulary, 257);
}

}  // namespace
}  // namespace coca::data::masking_test

// The generator: known values, independence of streams, resuming and basic statistics.
// SPDX-License-Identifier: Apache-2.0
#include "coca/base/rng.h"

#include <gtest/gtest.h>

#include <array>
#include <set>
#include <vector>

namespace coca::rng_test {
namespace {

TEST(Rng, Mix64IsSplitMix64) {
  // The first three outputs of the published splitmix64.c from state 0: each call adds the golden gamma.
  EXPECT_EQ(mix64(0), 0xe220a8397b1dcdafull);
  EXPECT_EQ(mix64(0x9e3779b97f4a7c15ull), 0x6e789e6aa1b965f4ull);
  EXPECT_EQ(mix64(2 * 0x9e3779b97f4a7c15ull), 0x06c45d188009454full);
}

TEST(Rng, SameSeedSameNumbersAndCounterResumes) {
  Rng a(7, 3), b(7, 3);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(a.next(), b.next());
  Rng resumed(7, 3);
  resumed.set_counter(a.counter());
  for (int i = 0; i < 100; ++i) ASSERT_EQ(a.next(), resumed.next());
}

TEST(Rng, SeedsAndStreamsDiffer) {
  std::set<uint64_t> seen;
  for (uint64_t seed = 0; seed < 40; ++seed)
    for (uint64_t stream = 0; stream < 40; ++stream) seen.insert(Rng(seed, stream).next());
  EXPECT_EQ(seen.size(), 1600u);
}

TEST(Rng, UniformStaysBelowOneAndHasTheRightMoments) {
  Rng rng(1);
  constexpr int kCount = 200000;
  double sum = 0, squares = 0;
  for (int i = 0; i < kCount; ++i) {
    const double u = rng.uniform();
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    squares += u * u;
  }
  // Five standard errors: sd(u) = sqrt(1/12) = 0.289, sd(u^2) = sqrt(1/5 - 1/9) = 0.298, over sqrt(200000) =
  // 447.
  EXPECT_NEAR(sum / kCount, 0.5, 5 * 0.289 / 447);
  EXPECT_NEAR(squares / kCount, 1.0 / 3, 5 * 0.298 / 447);
}

TEST(Rng, BelowIsEven) {
  Rng rng(2);
  constexpr int kCount = 70000;
  std::array<int, 7> counts{};
  for (int i = 0; i < kCount; ++i) ++counts.at(rng.below(7));
  double chi2 = 0;
  for (const int c : counts) chi2 += (c - kCount / 7.0) * (c - kCount / 7.0) / (kCount / 7.0);
  EXPECT_LT(chi2, 22.46);  // 6 degrees of freedom, p = 0.001
  for (int i = 0; i < 100; ++i) ASSERT_EQ(rng.below(1), 0u);
}

TEST(Rng, NormalHasTheRightMoments) {
  Rng rng(3);
  constexpr int kCount = 200000;
  double sum = 0, squares = 0, fourth = 0;
  for (int i = 0; i < kCount; ++i) {
    const double z = rng.normal();
    ASSERT_TRUE(std::isfinite(z));
    sum += z;
    squares += z * z;
    fourth += z * z * z * z;
  }
  // Five standard errors: variances of z, z^2 and z^4 are 1, 2 and 96.
  EXPECT_NEAR(sum / kCount, 0.0, 5 * 1.0 / 447);
  EXPECT_NEAR(squares / kCount, 1.0, 5 * 1.415 / 447);
  EXPECT_NEAR(fourth / kCount, 3.0, 5 * 9.8 / 447);
}

TEST(Rng, BitsAreBalanced) {
  Rng rng(4);
  std::array<int, 64> ones{};
  constexpr int kCount = 20000;
  for (int i = 0; i < kCount; ++i) {
    const uint64_t word = rng.next();
    for (size_t b = 0; b < 64; ++b) ones[b] += static_cast<int>((word >> b) & 1u);
  }
  // Five standard deviations of a fair binomial: 5 * sqrt(20000) / 2 = 354.
  for (size_t b = 0; b < 64; ++b) EXPECT_NEAR(ones[b], kCount / 2, 354) << "bit " << b;
}

}  // namespace
}  // namespace coca::rng_test

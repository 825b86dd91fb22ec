// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/kv_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/tiny_model.h"

namespace coca::infer {
namespace {

using test::AttentionKind;

TEST(KvCache, CocaNeedsThreeQuartersOfTheBytes) {
  for (const AttentionKind kind :
       {AttentionKind::kCocaSlack, AttentionKind::kCocaStrict, AttentionKind::kCocaTied})
    for (const auto make : {test::tiny_neox, test::tiny_llama}) {
      const KvCache rope(make(AttentionKind::kRope), 2, 100), coca(make(kind), 2, 100);
      EXPECT_EQ(4 * coca.bytes(), 3 * rope.bytes());
      const model::ModelSpec s = make(kind);
      EXPECT_EQ(coca.bytes(),
                sizeof(float) * static_cast<size_t>(2 * 100 * s.L * model::cache_floats_per_token(s)));
    }
}

TEST(KvCache, ShapesFollowTheAttention) {
  const model::ModelSpec s = test::tiny_llama(AttentionKind::kCocaSlack);
  KvCache coca(s, 3, 10);
  EXPECT_EQ(coca.keys(1, 2, 5).shape, Dims({3, 5, s.G, s.D / 2}));
  EXPECT_EQ(coca.values(1, 2, 5).shape, Dims({3, 5, s.G, s.D}));
  KvCache rope(test::tiny_llama(AttentionKind::kRope), 3, 10);
  EXPECT_EQ(rope.keys(0, 0, 10).shape, Dims({3, 10, s.G, s.D}));
}

// Every number written before growing is there afterwards, for every layer and row of the batch.
TEST(KvCache, GrowthKeepsWhatIsThere) {
  const model::ModelSpec s = test::tiny_neox(AttentionKind::kCocaSlack);
  KvCache cache(s, 2, 3);
  const auto value = [](int64_t layer, int64_t b, int64_t n, int64_t g, int64_t d, float kind) {
    return static_cast<float>(layer * 10000 + b * 1000 + n * 100 + g * 10 + d) + kind;
  };
  const auto visit = [&](const auto& body) {
    for (int64_t l = 0; l < s.L; ++l)
      for (const bool keys : {true, false}) {
        const auto v = (keys ? cache.keys(l, 0, 3) : cache.values(l, 0, 3)).view<float, 4>();
        for (int64_t b = 0; b < 2; ++b)
          for (int64_t n = 0; n < 3; ++n)
            for (int64_t g = 0; g < s.G; ++g)
              for (int64_t d = 0; d < v.size(3); ++d)
                body(v(b, n, g, d), value(l, b, n, g, d, keys ? 0.25f : 0.75f));
      }
  };
  visit([](float& slot, float number) { slot = number; });
  cache.advance(3);
  cache.reserve(4);
  EXPECT_GE(cache.capacity(), 6);  // doubled
  EXPECT_EQ(cache.length(), 3);
  visit([](float& slot, float number) { ASSERT_EQ(slot, number); });
  cache.reserve(100);
  EXPECT_EQ(cache.capacity(), 100);
  visit([](float& slot, float number) { ASSERT_EQ(slot, number); });
  const int64_t capacity = cache.capacity();
  cache.reserve(50);
  EXPECT_EQ(cache.capacity(), capacity);
}

TEST(KvCache, TruncateAndErrors) {
  const model::ModelSpec s = test::tiny_neox(AttentionKind::kRope);
  KvCache cache(s, 1, 0);
  EXPECT_EQ(cache.capacity(), 1);
  cache.reserve(8);
  cache.advance(8);
  cache.truncate(5);
  EXPECT_EQ(cache.length(), 5);
  EXPECT_THROW(cache.truncate(6), Error);
  EXPECT_THROW(cache.truncate(-1), Error);
  cache.truncate(0);
  EXPECT_EQ(cache.length(), 0);
  EXPECT_THROW(KvCache(s, 0, 8), Error);
}

}  // namespace
}  // namespace coca::infer

// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/kv_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coca/ops/kv_store.h"
#include "support/numerics.h"
#include "support/tiny_model.h"

namespace coca::infer::kv_cache_test {
namespace {

using test::AttentionKind;
const KvType kTypes[] = {KvType::kF32, KvType::kBF16, KvType::kInt8};

TEST(KvCache, CocaNeedsThreeQuartersOfTheBytes) {
  for (const AttentionKind kind : {AttentionKind::kCocaSlack, AttentionKind::kCocaStrict, AttentionKind::kCocaTied})
    for (model::ModelSpec coca : {test::tiny_neox(kind), test::tiny_llama(kind)}) {
      coca.D = 32;
      model::ModelSpec rope = coca;
      rope.attention = AttentionKind::kRope;
      for (const KvType type : kTypes) {
        KvCache c(kv_pool(coca, type)), r(kv_pool(rope, type));
        EXPECT_EQ(c.bytes(), 0u);
        c.reserve(512);
        r.reserve(512);
        const int64_t scales = type == KvType::kInt8 ? 8 : 0, number = type == KvType::kF32    ? 4
                                                                       : type == KvType::kBF16 ? 2
                                                                                               : 1;
        EXPECT_EQ(model::cache_bytes_per_token(rope, type), coca.G * (64 * number + scales));
        EXPECT_EQ(model::cache_bytes_per_token(coca, type), coca.G * (48 * number + scales));
        EXPECT_EQ(c.bytes(), static_cast<size_t>(512 * coca.L * model::cache_bytes_per_token(coca, type)));
        EXPECT_EQ(r.bytes(), static_cast<size_t>(512 * coca.L * model::cache_bytes_per_token(rope, type)));
        if (scales == 0) {
          EXPECT_EQ(4 * c.bytes(), 3 * r.bytes());
        }
      }
    }
}

TEST(KvCache, ShapesFollowTheAttention) {
  const model::ModelSpec s = test::tiny_llama(AttentionKind::kCocaSlack);
  KvCache coca(kv_pool(s, KvType::kInt8));
  coca.reserve(7);
  const KvView v = coca.view(1, 7);
  EXPECT_EQ(v.layout.W, s.D / 2);
  EXPECT_EQ(v.layout.D, s.D);
  EXPECT_EQ(v.layout.G, s.G);
  EXPECT_EQ(v.layout.key_sign, KeySign::kNonNegative);
  const KvCache rope(kv_pool(test::tiny_llama(AttentionKind::kRope)));
  EXPECT_EQ(rope.view(0, 0).layout.W, s.D);
  EXPECT_EQ(rope.view(0, 0).layout.key_sign, KeySign::kSigned);
}

// After growth every number is still there, at its old address, for every layer.
TEST(KvCache, GrowthKeepsItsContents) {
  const model::ModelSpec s = test::tiny_neox(AttentionKind::kCocaSlack);
  KvCache cache(kv_pool(s));
  Context cx;
  const auto keys = [&](int64_t l) {
    return test::random_tensor({1, 300, s.G, s.D / 2}, static_cast<uint64_t>(l), 0, 1);
  };
  const auto values = [&](int64_t l) {
    return test::random_tensor({1, 300, s.G, s.D}, static_cast<uint64_t>(100 + l));
  };
  cache.reserve(300);
  EXPECT_EQ(cache.capacity(), 512);
  for (int64_t l = 0; l < s.L; ++l) {
    const Tensor k = keys(l), v = values(l);
    ops::kv_store(cx, cache.store(l, 0, k, v));
  }
  cache.advance(300);
  const std::byte* first = cache.view(0, 300).pages[0];
  for (const int64_t more : {301, 513, 5000, 50}) {
    cache.reserve(more);
    EXPECT_GE(cache.capacity(), more);
    EXPECT_EQ(cache.length(), 300);
    EXPECT_EQ(cache.view(0, 300).pages[0], first);
    for (int64_t l = 0; l < s.L; ++l) {
      const Tensor k = keys(l), v = values(l);
      Tensor k_read(k.shape()), v_read(v.shape());
      ops::kv_load(cx, {.cache = cache.view(l, 300), .keys = k_read, .values = v_read});
      EXPECT_TRUE(std::ranges::equal(k.values<float>(), k_read.values<float>()));
      EXPECT_TRUE(std::ranges::equal(v.values<float>(), v_read.values<float>()));
    }
  }
  EXPECT_EQ(cache.capacity(), 5120);  // never shrinks, and exceeds the need by less than a page
}

TEST(KvCache, TruncateAndErrors) {
  const model::ModelSpec s = test::tiny_neox(AttentionKind::kRope);
  KvCache cache(kv_pool(s));
  EXPECT_EQ(cache.capacity(), 0);
  cache.reserve(8);
  cache.advance(8);
  cache.truncate(5);
  EXPECT_EQ(cache.length(), 5);
  EXPECT_THROW(cache.truncate(6), Error);
  EXPECT_THROW(cache.truncate(-1), Error);
  cache.truncate(0);
  EXPECT_EQ(cache.length(), 0);
  Tensor k({1, 2, s.G, s.D});
  EXPECT_THROW(cache.store(0, 255, k, k), Error);  // beyond the reserved tokens
}

}  // namespace
}  // namespace coca::infer::kv_cache_test

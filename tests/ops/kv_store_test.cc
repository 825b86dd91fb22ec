// Values read from the cache equal those written, exactly or within half a step of its type.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/kv_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops/op_test.h"

namespace coca::ops::kv_store_test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
const KvType kTypes[] = {KvType::kF32, KvType::kBF16, KvType::kInt8};

KvLayout layout_of(KvType type, KeySign sign) { return {.type = type, .key_sign = sign, .G = 3, .W = 5, .D = 10}; }

struct Tokens {
  Tensor keys, values;
};
Tokens random_tokens(const KvLayout& l, int64_t N, uint64_t seed) {
  const double low = l.key_sign == KeySign::kNonNegative ? 0.0 : -3.0;
  return {test::random_tensor({1, N, l.G, l.W}, seed, low, 3), test::random_tensor({1, N, l.G, l.D}, seed + 1, -2, 2)};
}
Tokens load(const KvPages& pages, int64_t first, int64_t N) {
  const KvLayout& l = pages.layout();
  Tokens t{Tensor({1, N, l.G, l.W}), Tensor({1, N, l.G, l.D})};
  Context cx;
  kv_load(cx, {.cache = pages.view(0, first + N), .first = first, .keys = t.keys, .values = t.values});
  return t;
}

// The largest difference of any head, in steps of that head's scale (largest magnitude / limit).
double worst_steps(const Tensor& was, const Tensor& is, double limit) {
  const int64_t width = was.size(3);
  double worst = 0;
  for (int64_t head = 0; head < was.numel() / width; ++head) {
    const auto a = was.values<float>().subspan(static_cast<size_t>(head * width), static_cast<size_t>(width)),
               b = is.values<float>().subspan(static_cast<size_t>(head * width), static_cast<size_t>(width));
    double largest = 0, difference = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      largest = std::max<double>(largest, std::abs(a[i]));
      difference = std::max<double>(difference, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    }
    worst = std::max(worst, difference / (largest / limit));
  }
  return worst;
}

TEST(KvStore, ReadsBackValuesToThePrecisionOfItsType) {
  for (const KvType type : kTypes)
    for (const KeySign sign : {KeySign::kSigned, KeySign::kNonNegative}) {
      SCOPED_TRACE(enum_name(type));
      const KvLayout l = layout_of(type, sign);
      KvPages pages(KvPool(l, 1));
      constexpr int64_t kN = 600;  // three pages, the last one partly filled
      pages.reserve(kN);
      const Tokens t = random_tokens(l, kN, 1);
      Context cx;
      int64_t first = 0;
      for (const int64_t n : {1, 70, 250, 1, 278}) {  // pieces that start and end within tiles and pages
        kv_store(cx, {.keys = t.keys.ref().narrow(1, first, n),
                      .values = t.values.ref().narrow(1, first, n),
                      .first = first,
                      .cache = pages.mut_view(0, first, kN)});
        first += n;
      }
      ASSERT_EQ(first, kN);
      const Tokens back = load(pages, 0, kN);
      for (const bool keys : {true, false}) {
        const Tensor &was = keys ? t.keys : t.values, &is = keys ? back.keys : back.values;
        if (type == KvType::kInt8) {
          // Half a step, and the errors of the float divisions by the scale and by the limit and of the product: each
          // at most 2^-24 of 255 steps.
          EXPECT_LE(worst_steps(was, is, keys && sign == KeySign::kNonNegative ? 255 : 127), 0.5 + 3 * 255 * 0x1p-24);
          EXPECT_GT(worst_steps(was, is, keys && sign == KeySign::kNonNegative ? 255 : 127), 0.4);
          continue;
        }
        for (size_t i = 0; i < was.values<float>().size(); ++i) {
          const float x = was.values<float>()[i];
          ASSERT_EQ(is.values<float>()[i], type == KvType::kF32 ? x : static_cast<float>(BF16(x))) << i;
        }
      }
    }
}

TEST(KvStore, TakesBf16AndStridedViews) {
  const KvLayout l = layout_of(KvType::kF32, KeySign::kSigned);
  KvPages pages(KvPool(l, 1));
  pages.reserve(4);
  Tensor wide = test::random_tensor({1, 4, 3, 2, 10}, 5);  // values are every second head
  Tensor keys({1, 4, 3, 5}, DType::kBF16);
  for (size_t i = 0; i < keys.values<BF16>().size(); ++i) keys.values<BF16>()[i] = BF16(static_cast<float>(i) + 0.25f);
  Context cx;
  kv_store(cx, {.keys = keys, .values = wide.ref().select(3, 1), .cache = pages.mut_view(0, 0, 4)});
  const Tokens back = load(pages, 0, 4);
  for (size_t i = 0; i < keys.values<BF16>().size(); ++i)
    ASSERT_EQ(back.keys.values<float>()[i], static_cast<float>(keys.values<BF16>()[i]));
  for (size_t i = 0; i < back.values.values<float>().size(); ++i)
    ASSERT_EQ(back.values.values<float>()[i], wide.values<float>()[i / 10 * 20 + 10 + i % 10]);
}

// Sequences of different lengths in one call, one of them without new tokens.
TEST(KvStore, SeveralSequencesAtOnce) {
  for (const KvType type : kTypes) {
    const KvLayout l = layout_of(type, KeySign::kSigned);
    const KvPool pool(l, 1);
    const std::pair<int64_t, int64_t> pieces[] = {{0, 3}, {250, 70}, {60, 0}, {511, 1}};  // first, count
    std::vector<KvPages> together, alone;
    std::vector<Tokens> tokens;
    std::vector<KvStore> calls;
    Context cx;
    for (const auto& [first, count] : pieces) {
      const Tokens& t = tokens.emplace_back(random_tokens(l, count, static_cast<uint64_t>(first + 1)));
      for (auto* list : {&together, &alone}) list->emplace_back(pool).reserve(first + count);
      kv_store(cx, {.keys = t.keys,
                    .values = t.values,
                    .first = first,
                    .cache = alone.back().mut_view(0, first, first + count)});
    }
    for (size_t i = 0; i < tokens.size(); ++i) {
      const auto& [first, count] = pieces[i];
      calls.push_back({.keys = tokens[i].keys,
                       .values = tokens[i].values,
                       .first = first,
                       .cache = together[i].mut_view(0, first, first + count)});
    }
    kv_store(cx, calls);
    for (size_t i = 0; i < tokens.size(); ++i) {
      const auto& [first, count] = pieces[i];
      const Tokens a = load(alone[i], first, count), b = load(together[i], first, count);
      EXPECT_TRUE(std::ranges::equal(a.keys.values<float>(), b.keys.values<float>())) << i;
      EXPECT_TRUE(std::ranges::equal(a.values.values<float>(), b.values.values<float>())) << i;
    }
  }
}

TEST(KvStore, Int8Extremes) {
  KvLayout l{.type = KvType::kInt8, .G = 1, .W = 4, .D = 4};
  KvPages pages(KvPool(l, 1));
  pages.reserve(6);
  const std::vector<std::vector<float>> rows = {
      {0, 0, 0, 0},                  // exact
      {1e-42f, -1e-42f, 1e-39f, 0},  // the scale is the smallest normal number: within half of it
      {3e38f, -3e38f, 1, 1.2e36f},   // no overflow
      {1, kNan, 2, 3},               // NaNs are visible
      {1, 2, 3, -kInf},
      {127, -127, 63.4f, -0.6f},
  };
  Tensor x({1, 6, 1, 4});
  for (size_t i = 0; i < 24; ++i) x.values<float>()[i] = rows[i / 4][i % 4];
  Context cx;
  kv_store(cx, {.keys = x, .values = x, .cache = pages.mut_view(0, 0, 6)});
  const Tokens back = load(pages, 0, 6);
  for (const Tensor* t : {&back.keys, &back.values}) {
    const auto y = t->values<float>();
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(y[i], 0);
      EXPECT_LE(std::abs(y[4 + i] - rows[1][i]), std::numeric_limits<float>::min() / 2);
      EXPECT_LE(std::abs(y[8 + i] - rows[2][i]), 3e38 / 127 * 0.5001);
      EXPECT_TRUE(std::isnan(y[12 + i]));
      EXPECT_TRUE(std::isnan(y[16 + i]));
    }
    EXPECT_THAT(y.subspan(20), testing::ElementsAre(127, -127, 63, -1));
  }
}

TEST(KvStore, NegativeNumbersOfNonNegativeKeysAreZero) {
  KvPages pages(KvPool({.type = KvType::kInt8, .key_sign = KeySign::kNonNegative, .G = 1, .W = 4, .D = 4}, 1));
  pages.reserve(1);
  Tensor x({1, 1, 1, 4});
  const float values[] = {-9, 2, 0, 1};
  std::copy_n(values, 4, x.values<float>().begin());
  Context cx;
  kv_store(cx, {.keys = x, .values = x, .cache = pages.mut_view(0, 0, 1)});
  EXPECT_THAT(load(pages, 0, 1).keys.values<float>(), testing::ElementsAre(0, 2, 0, testing::FloatNear(1, 1.0f / 255)));
}

TEST(KvStore, MisuseIsNamed) {
  const KvLayout l = layout_of(KvType::kF32, KeySign::kSigned);
  KvPages pages(KvPool(l, 1));
  pages.reserve(8);
  Tensor keys({1, 4, 3, 5}), values({1, 4, 3, 10}), wide({1, 4, 3, 6}), ints({1, 4, 3, 5}, DType::kI32);
  Context cx;
  const auto store = [&](TensorRef k, TensorRef v, int64_t first) {
    return [&cx, &pages, k, v, first] {
      kv_store(cx, {.keys = k, .values = v, .first = first, .cache = pages.mut_view(0, first, 8)});
    };
  };
  test::expect_error(store(wide, values, 0), "keys has shape [1, 4, 3, 6]; expected [1, 4, 3, 5]");
  test::expect_error(store(ints, values, 0), "keys has type I32");
  test::expect_error(store(keys, keys, 0), "values has shape");
  test::expect_error(store(keys, values, 5), "tokens 5 to 9 are not among the 8");
  test::expect_error([&] { pages.view(0, 257); }, "257 tokens requested; expected 0 to 256");
}

}  // namespace
}  // namespace coca::ops::kv_store_test

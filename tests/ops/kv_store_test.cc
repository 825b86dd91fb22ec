// Values read from the cache equal those written, exactly or within half a step of its type.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/kv_store.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "coca/kernels/ref/kv_store.h"
#include "ops/op_test.h"
#include "support/fake_device.h"

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
KvPages pages_on(Context& cx, const KvLayout& l) { return KvPages(KvPool(l, 1, 0, cx.memory())); }
void store(Context& cx, const Tokens& t, KvPages& pages, int64_t first = 0) {
  const int64_t N = t.keys.size(1);
  pages.reserve(first + N);
  const Tensor keys = to_device(cx, t.keys), values = to_device(cx, t.values);
  kv_store(cx, {.keys = keys, .values = values, .first = first, .cache = pages.mut_view(0, first, first + N)});
}
// The tokens in the cache, copied to the host.
Tokens load(Context& cx, const KvPages& pages, int64_t first, int64_t N) {
  const KvLayout& l = pages.layout();
  Tokens t{Tensor({1, N, l.G, l.W}, DType::kF32, cx.memory()), Tensor({1, N, l.G, l.D}, DType::kF32, cx.memory())};
  kv_load(cx, {.cache = pages.view(0, first + N), .first = first, .keys = t.keys, .values = t.values});
  return {to_host(cx, t.keys), to_host(cx, t.values)};
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

// Each number rounded to the type of the cache.
void expect_stored(const KvLayout& l, const Tokens& was, const Tokens& is) {
  const KvType type = l.type;
  if (type == KvType::kInt8) {
    // Half a step, and the errors of the float divisions by the scale and by the limit and of the product: each at most
    // 2^-24 of 255 steps.
    const double key_limit = l.key_sign == KeySign::kNonNegative ? 255 : 127;
    for (const double worst : {worst_steps(was.keys, is.keys, key_limit), worst_steps(was.values, is.values, 127)}) {
      EXPECT_LE(worst, 0.5 + 3 * 255 * 0x1p-24);
      EXPECT_GT(worst, 0.4);
    }
    return;
  }
  const auto held = [&](const Tensor& t) {
    return type == KvType::kF32 ? test::float_values(t) : test::as_stored<BF16>(test::float_values(t));
  };
  ASSERT_EQ(test::float_values(is.keys), held(was.keys));
  ASSERT_EQ(test::float_values(is.values), held(was.values));
}

TEST(KvStore, ReadsBackValuesToThePrecisionOfItsType) {
  for (const KvType type : kTypes)
    for (const KeySign sign : {KeySign::kSigned, KeySign::kNonNegative}) {
      SCOPED_TRACE(enum_name(type));
      const KvLayout l = layout_of(type, sign);
      constexpr int64_t kN = 600;  // three pages, the last one partly filled
      const Tokens t = random_tokens(l, kN, 1);
      test::for_each_way({"kv_store"}, [&](Context& cx) {
        const Tensor keys = to_device(cx, t.keys), values = to_device(cx, t.values);
        KvPages pages = pages_on(cx, l);
        pages.reserve(kN);
        int64_t first = 0;
        for (const int64_t n : {1, 70, 250, 1, 278}) {  // pieces that start and end within tiles and pages
          kv_store(cx, {.keys = keys.ref().narrow(1, first, n),
                        .values = values.ref().narrow(1, first, n),
                        .first = first,
                        .cache = pages.mut_view(0, first, kN)});
          first += n;
        }
        ASSERT_EQ(first, kN);
        expect_stored(l, t, load(cx, pages, 0, kN));
        Tensor some({1, 100, l.G, l.W}, DType::kF32, cx.memory());  // keys only, starting within a tile
        kv_load(cx, {.cache = pages.view(0, kN), .first = 201, .keys = some});
        const std::vector<float> all = test::float_values(load(cx, pages, 0, kN).keys);
        EXPECT_TRUE(std::ranges::equal(
            test::float_values(to_host(cx, some)),
            std::span(all).subspan(static_cast<size_t>(201 * l.G * l.W), static_cast<size_t>(100 * l.G * l.W))));
      });
    }
}

// The bytes of a page, on the host or a device.
std::vector<std::byte> bytes_of(Context& cx, const KvPages& pages) {
  std::vector<std::byte> bytes(pages.layout().layer_bytes());
  const std::byte* page = pages.view(0, 1).pages[0];
  if (cx.memory() == nullptr) return {page, page + bytes.size()};
  cx.memory()->download(bytes.data(), page, bytes.size());
  cx.memory()->synchronize();
  return bytes;
}

// Attention reads the pages directly, so every byte must be in its place, and bytes that are not stored must not
// change.
TEST(KvStore, EveryByteEqualsTheReference) {
  for (const KvType type : kTypes)
    for (const KeySign sign : {KeySign::kSigned, KeySign::kNonNegative})
      for (const auto& [W, D] : {std::pair<int64_t, int64_t>{5, 10}, {40, 72}}) {
        SCOPED_TRACE(fmt::format("{} W={} D={}", enum_name(type), W, D));
        const KvLayout l{.type = type, .key_sign = sign, .G = 2, .W = W, .D = D};
        constexpr int64_t kFirst = 50, kN = 100;
        const Tokens t = random_tokens(l, kN, 3);
        std::vector<std::byte> wanted(l.layer_bytes());
        for (int64_t n = 0; n < kN; ++n)
          for (int64_t g = 0; g < l.G; ++g) {
            std::byte* run = wanted.data() + static_cast<size_t>(g) * l.run_bytes();
            const auto head = [&](const Tensor& x) {
              const auto width = static_cast<size_t>(x.size(3));
              return x.values<float>().subspan(static_cast<size_t>(n * l.G + g) * width, width);
            };
            ref::write_head(type, head(t.keys), ref::key_slot(l, run, kFirst + n));
            ref::write_head(type, head(t.values), ref::value_slot(l, run, kFirst + n));
          }
        test::for_each_way({"kv_store"}, [&](Context& cx) {
          KvPages pages = pages_on(cx, l);
          store(cx, t, pages, kFirst);
          const std::vector<std::byte> got = bytes_of(cx, pages);
          const auto [a, b] = std::ranges::mismatch(got, wanted);
          EXPECT_TRUE(a == got.end()) << "byte " << a - got.begin();
        });
      }
}

TEST(KvStore, TakesBf16AndStridedViews) {
  const KvLayout l = layout_of(KvType::kF32, KeySign::kSigned);
  const Tensor wide = test::random_tensor({1, 4, 3, 2, 10}, 5);  // values are every second head
  Tensor keys({1, 4, 3, 5}, DType::kBF16);
  for (size_t i = 0; i < keys.values<BF16>().size(); ++i) keys.values<BF16>()[i] = BF16(static_cast<float>(i) + 0.25f);
  test::for_each_way({"kv_store"}, [&](Context& cx) {
    const Tensor keys_there = to_device(cx, keys), wide_there = to_device(cx, wide);
    KvPages pages = pages_on(cx, l);
    pages.reserve(4);
    kv_store(cx, {.keys = keys_there, .values = wide_there.ref().select(3, 1), .cache = pages.mut_view(0, 0, 4)});
    const Tokens back = load(cx, pages, 0, 4);
    ASSERT_EQ(test::float_values(back.keys), test::float_values(keys));
    for (size_t i = 0; i < back.values.values<float>().size(); ++i)
      ASSERT_EQ(back.values.values<float>()[i], wide.values<float>()[i / 10 * 20 + 10 + i % 10]);
  });
}

// Sequences of different lengths in one call: one has no new tokens, and there are more than a single launch can take.
TEST(KvStore, SeveralSequencesAtOnce) {
  for (const KvType type : kTypes) {
    const KvLayout l = layout_of(type, KeySign::kSigned);
    std::vector<std::pair<int64_t, int64_t>> pieces = {{0, 3}, {250, 70}, {60, 0}, {511, 1}};  // first, count
    pieces.resize(45, {7, 1});
    test::for_each_way({"kv_store"}, [&](Context& cx) {
      std::vector<KvPages> together, alone;
      std::vector<Tokens> there;
      std::vector<KvStore> calls;
      for (size_t i = 0; i < pieces.size(); ++i) {
        const auto& [first, count] = pieces[i];
        const Tokens t = random_tokens(l, count, i + 1);
        store(cx, t, alone.emplace_back(pages_on(cx, l)), first);
        together.emplace_back(pages_on(cx, l)).reserve(first + count);
        there.push_back({to_device(cx, t.keys), to_device(cx, t.values)});
      }
      for (size_t i = 0; i < pieces.size(); ++i) {
        const auto& [first, count] = pieces[i];
        calls.push_back({.keys = there[i].keys,
                         .values = there[i].values,
                         .first = first,
                         .cache = together[i].mut_view(0, first, first + count)});
      }
      kv_store(cx, calls);
      for (size_t i = 0; i < pieces.size(); ++i) {
        const auto& [first, count] = pieces[i];
        const Tokens a = load(cx, alone[i], first, count), b = load(cx, together[i], first, count);
        EXPECT_EQ(test::float_values(a.keys), test::float_values(b.keys)) << i;
        EXPECT_EQ(test::float_values(a.values), test::float_values(b.values)) << i;
      }
    });
  }
}

TEST(KvStore, Int8Extremes) {
  const KvLayout l{.type = KvType::kInt8, .G = 1, .W = 4, .D = 4};
  const std::vector<std::vector<float>> rows = {
      {0, 0, 0, 0},                  // exact
      {1e-42f, -1e-42f, 1e-39f, 0},  // the scale is the smallest normal number: within half of it
      {3e38f, -3e38f, 1, 1.2e36f},   // no overflow
      {1, kNan, 2, 3},               // NaNs are visible
      {1, 2, 3, -kInf},
      {127, -127, 63.4f, -0.6f},
  };
  Tokens x{Tensor({1, 6, 1, 4}), Tensor({1, 6, 1, 4})};
  for (size_t i = 0; i < 24; ++i) x.keys.values<float>()[i] = x.values.values<float>()[i] = rows[i / 4][i % 4];
  test::for_each_way({"kv_store"}, [&](Context& cx) {
    KvPages pages = pages_on(cx, l);
    store(cx, x, pages);
    const Tokens back = load(cx, pages, 0, 6);
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
  });
}

TEST(KvStore, NegativeNumbersOfNonNegativeKeysAreZero) {
  const KvLayout l{.type = KvType::kInt8, .key_sign = KeySign::kNonNegative, .G = 1, .W = 4, .D = 4};
  Tokens x{Tensor({1, 2, 1, 4}), Tensor({1, 2, 1, 4})};
  const float values[] = {-9, 2, 0, 1, -kInf, 0, 5, 1};  // a negative infinity also becomes 0
  std::copy_n(values, 8, x.keys.values<float>().begin());
  test::for_each_way({"kv_store"}, [&](Context& cx) {
    KvPages pages = pages_on(cx, l);
    store(cx, x, pages);
    const Tokens back = load(cx, pages, 0, 2);
    const auto y = back.keys.values<float>();
    EXPECT_THAT(y.subspan(0, 4), testing::ElementsAre(0, 2, 0, testing::FloatNear(1, 1.0f / 255)));
    EXPECT_THAT(y.subspan(4), testing::ElementsAre(0, 0, 5, testing::FloatNear(1, 2.5f / 255)));
  });
}

TEST(KvStore, MisuseIsNamed) {
  const KvLayout l = layout_of(KvType::kF32, KeySign::kSigned);
  KvPages pages(KvPool(l, 1));
  pages.reserve(8);
  Tensor keys({1, 4, 3, 5}), values({1, 4, 3, 10}), wide({1, 4, 3, 6}), ints({1, 4, 3, 5}, DType::kI32);
  Context cx;
  const auto stored = [&](TensorRef k, TensorRef v, int64_t first) {
    return [&cx, &pages, k, v, first] {
      kv_store(cx, {.keys = k, .values = v, .first = first, .cache = pages.mut_view(0, first, 8)});
    };
  };
  test::expect_error(stored(wide, values, 0), "keys has shape [1, 4, 3, 6]; expected [1, 4, 3, 5]");
  test::expect_error(stored(ints, values, 0), "keys has type I32");
  test::expect_error(stored(keys, keys, 0), "values has shape");
  test::expect_error(stored(keys, values, 5), "tokens 5 to 9 are not among the 8");
  test::expect_error([&] { pages.view(0, 257); }, "257 tokens requested; expected 0 to 256");
  test::FakeDevice gpu(1 << 20);
  KvPages there(KvPool(l, 1, 0, &gpu));
  there.reserve(8);
  test::expect_error([&] { kv_store(cx, {.keys = keys, .values = values, .cache = there.mut_view(0, 0, 8)}); },
                     "[kv_store] the pages of the cache lie on cuda:0; expected cpu");
  test::expect_error([&] { kv_load(cx, {.cache = there.view(0, 8), .keys = keys}); },
                     "[kv_load] the pages of the cache lie on cuda:0; expected cpu");
}

}  // namespace
}  // namespace coca::ops::kv_store_test

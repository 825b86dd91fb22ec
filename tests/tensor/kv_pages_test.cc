// Pages come from a pool and return to it. Sequences that share pages do not see each other's writes.
// SPDX-License-Identifier: Apache-2.0
#include "coca/tensor/kv_pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <optional>

#include "coca/base/error.h"
#include "support/fake_device.h"

namespace coca::kv_pages_test {
namespace {

constexpr KvLayout kLayout{.type = KvType::kF32, .G = 2, .W = 3, .D = 5};

std::byte* run_of(KvPages& pages, int64_t token) { return pages.mut_view(0, token, pages.capacity()).run(0, token); }

TEST(KvPool, ReleasedPagesAreReused) {
  const KvPool pool(kLayout, 2);
  const std::byte* first = nullptr;
  {
    const KvPool::Page page = pool.take();
    first = page.get();
    EXPECT_EQ(pool.in_use(), 1);
  }
  EXPECT_EQ(pool.in_use(), 0);
  EXPECT_EQ(pool.allocated(), 1);
  const KvPool::Page again = pool.take(), another = pool.take();
  EXPECT_EQ(again.get(), first);
  EXPECT_EQ(pool.in_use(), 2);
  EXPECT_EQ(pool.allocated(), 2);
}

TEST(KvPool, HasALimit) {
  const KvPool pool(kLayout, 1, 2);
  KvPages a(pool), b(pool);
  a.reserve(kKvPage);
  b.reserve(1);
  EXPECT_THAT([&] { a.reserve(kKvPage + 1); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("all 2 pages of the cache (512 tokens) are in use")));
  EXPECT_EQ(a.capacity(), kKvPage);  // it keeps its pages
  b.truncate(0);
  a.reserve(kKvPage + 1);
  EXPECT_EQ(pool.in_use(), 2);
}

TEST(KvPool, PagesMayOutliveIt) {
  std::optional<KvPages> pages;
  {
    const KvPool pool(kLayout, 1);
    pages.emplace(pool);
    pages->reserve(1);
  }
  std::memset(run_of(*pages, 0), 1, kLayout.run_bytes());
  pages.reset();
}

TEST(KvPages, CopiesShareUntilOneWrites) {
  const KvPool pool(kLayout, 2);
  KvPages a(pool);
  a.reserve(3 * kKvPage);
  for (int64_t page = 0; page < 3; ++page) *run_of(a, page * kKvPage) = std::byte{7};
  KvPages b = a;
  EXPECT_EQ(pool.in_use(), 3);
  *run_of(b, 2 * kKvPage + 10) = std::byte{9};  // copies only the last page
  EXPECT_EQ(pool.in_use(), 4);
  const KvView va = a.view(1, a.capacity()), vb = b.view(1, b.capacity());
  for (int64_t page = 0; page < 3; ++page) {
    EXPECT_EQ(va.pages[page] == vb.pages[page], page < 2) << page;
    EXPECT_EQ(a.view(0, a.capacity()).run(0, page * kKvPage)[0], std::byte{7});
  }
  EXPECT_EQ(vb.pages[2][0], std::byte{9});  // run 0 of the page starts with the token's key; the rest was copied
  EXPECT_EQ(std::memcmp(va.pages[2] + 1, vb.pages[2] + 1, pool.page_bytes() - 1), 0);
  std::byte* own = run_of(b, 2 * kKvPage);
  *run_of(a, 0) = std::byte{8};  // copies all pages that a still shares with b
  EXPECT_EQ(*b.view(0, 1).run(0, 0), std::byte{7});
  EXPECT_EQ(own, run_of(b, 2 * kKvPage));  // b's own page does not move
}

TEST(KvPages, OfADeviceAreCopiedThere) {
  test::FakeDevice gpu(1 << 20);
  const auto first_byte = [&](const KvPages& pages) {
    std::byte b{};
    gpu.download(&b, pages.view(0, 1).run(0, 0), 1);
    gpu.synchronize();
    return b;
  };
  const std::byte seven{7}, nine{9};
  {
    const KvPool pool(kLayout, 1, 0, &gpu);
    KvPages a(pool);
    a.reserve(1);
    EXPECT_EQ(a.view(0, 1).device, gpu.device());
    EXPECT_EQ(gpu.used(), pool.page_bytes());
    gpu.upload(run_of(a, 0), &seven, 1);
    gpu.synchronize();
    KvPages b = a;
    std::byte* own = run_of(b, 0);
    EXPECT_EQ(first_byte(b), seven);
    gpu.upload(own, &nine, 1);
    gpu.synchronize();
    EXPECT_EQ(first_byte(a), seven);
    EXPECT_EQ(first_byte(b), nine);
    EXPECT_EQ(b.mut_view(0, 0, 1).device, gpu.device());
  }
  EXPECT_EQ(gpu.used(), 0);
}

TEST(KvPages, RecyclingKeepsOnlyOwnPages) {
  const KvPool pool(kLayout, 1);
  KvPages a(pool);
  a.reserve(4 * kKvPage);
  for (int64_t page = 0; page < 4; ++page) *run_of(a, page * kKvPage) = std::byte(page);
  KvPages alone = a;
  *run_of(alone, 0) = std::byte{0};  // makes copies of the pages
  alone.recycle(1, 2);
  EXPECT_EQ(alone.capacity(), 4 * kKvPage);
  EXPECT_EQ(*alone.view(0, 4 * kKvPage).run(0, kKvPage), std::byte{3});
  KvPages shared = a;
  shared.recycle(1, 2);
  EXPECT_EQ(shared.capacity(), 2 * kKvPage);
  EXPECT_EQ(*shared.view(0, 2 * kKvPage).run(0, kKvPage), std::byte{3});
  for (int64_t page = 0; page < 4; ++page)
    EXPECT_EQ(*a.view(0, 4 * kKvPage).run(0, page * kKvPage), std::byte(page)) << page;
  EXPECT_THROW(a.recycle(3, 2), Error);
}

TEST(KvPages, MisuseIsNamed) {
  EXPECT_THROW(KvPool({.G = 0, .W = 1, .D = 1}, 1), Error);
  EXPECT_THROW(KvPool(kLayout, 0), Error);
  EXPECT_THROW(KvPool(kLayout, 1, -1), Error);
  KvPages pages{KvPool(kLayout, 2)};
  pages.reserve(1);
  EXPECT_THAT([&] { pages.view(2, 0); }, testing::ThrowsMessage<Error>(testing::HasSubstr("no layer 2 of 2")));
  EXPECT_THROW(pages.view(0, kKvPage + 1), Error);
  EXPECT_THROW(pages.truncate(-1), Error);
}

}  // namespace
}  // namespace coca::kv_pages_test

// parallel_for runs every task once, nests, and gives reductions the same bits for any number of threads.
// SPDX-License-Identifier: Apache-2.0
#include "coca/base/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "coca/base/error.h"
#include "coca/base/rng.h"

namespace coca::parallel_test {
namespace {

class Parallel : public testing::Test {
 protected:
  void TearDown() override { set_max_threads(before_); }
  int before_ = max_threads();
};

TEST_F(Parallel, EveryTaskRunsOnce) {
  for (const int threads : {1, 2, 5}) {
    set_max_threads(threads);
    for (const int64_t tasks : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(tasks));
      parallel_for(tasks, [&](int64_t task) { ++runs[static_cast<size_t>(task)]; });
      for (const auto& r : runs) ASSERT_EQ(r.load(), 1) << threads << " threads, " << tasks << " tasks";
    }
  }
}

TEST_F(Parallel, NoTasksForZeroOrNegative) {
  parallel_for(0, [](int64_t) { FAIL(); });
  parallel_for(-3, [](int64_t) { FAIL(); });
  parallel_blocks(0, 8, [](int64_t, int64_t) { FAIL(); });
}

TEST_F(Parallel, ThreadIndexIsInRange) {
  set_max_threads(4);
  std::atomic<int> wrong = 0;
  parallel_for(200, [&](int64_t) { wrong += thread_index() < 0 || thread_index() >= max_threads(); });
  EXPECT_EQ(wrong.load(), 0);
}

TEST_F(Parallel, NestedLoopsRunEveryPair) {
  set_max_threads(3);
  std::mutex mutex;
  std::set<std::pair<int64_t, int64_t>> seen;
  parallel_for(6, [&](int64_t i) {
    parallel_for(5, [&](int64_t j) {
      const std::lock_guard lock(mutex);
      seen.insert({i, j});
    });
  });
  EXPECT_EQ(seen.size(), 30u);
}

TEST_F(Parallel, BlocksCoverTheItemsAndDependOnTheGrainAlone) {
  for (const auto& [items, grain] :
       std::vector<std::pair<int64_t, int64_t>>{{10, 3}, {9, 3}, {1, 64}, {7, 0}, {5, 1}}) {
    std::set<std::pair<int64_t, int64_t>> first;
    for (const int threads : {1, 2, 3}) {
      set_max_threads(threads);
      std::mutex mutex;
      std::set<std::pair<int64_t, int64_t>> blocks;
      parallel_blocks(items, grain, [&](int64_t begin, int64_t end) {
        const std::lock_guard lock(mutex);
        blocks.insert({begin, end});
      });
      int64_t at = 0;
      for (const auto& [begin, end] : blocks) {
        EXPECT_EQ(begin, at);
        EXPECT_LE(end - begin, std::max<int64_t>(grain, 1));
        at = end;
      }
      EXPECT_EQ(at, items);
      if (threads == 1) first = blocks;
      EXPECT_EQ(blocks, first);
    }
  }
}

TEST_F(Parallel, BlockedSumsHaveTheSameBits) {
  std::vector<float> values(10007);
  Rng rng(5);
  for (float& v : values) v = static_cast<float>(rng.normal());
  const auto sum = [&](int threads) {
    set_max_threads(threads);
    std::vector<float> partial(values.size() / 64 + 1);
    parallel_blocks(static_cast<int64_t>(values.size()), 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) partial[static_cast<size_t>(begin / 64)] += values[static_cast<size_t>(i)];
    });
    float total = 0;
    for (const float p : partial) total += p;
    return total;
  };
  const float one = sum(1);
  EXPECT_NE(one, 0.0f);
  for (const int threads : {2, 3, 4}) EXPECT_EQ(sum(threads), one) << threads << " threads";
}

TEST_F(Parallel, TheNumberHoldsForEveryThreadThatComputes) {
  const auto elsewhere = [](int64_t tasks) {
    std::set<std::thread::id> threads;
    int most = 0;
    std::thread([&] {
      std::mutex mutex;
      parallel_for(tasks, [&](int64_t) {
        const std::lock_guard lock(mutex);
        threads.insert(std::this_thread::get_id());
      });
      most = max_threads();
    }).join();
    return std::pair{threads.size(), most};
  };
  set_max_threads(1);
  EXPECT_EQ(elsewhere(1000), (std::pair{size_t{1}, 1}));
  set_max_threads(3);
  EXPECT_EQ(elsewhere(1000).second, 3);
}

TEST_F(Parallel, ThreadCountIsChecked) {
  EXPECT_THROW(set_max_threads(0), Error);
  EXPECT_THROW(set_max_threads(-1), Error);
  EXPECT_THROW(set_max_threads(5000), Error);
  set_max_threads(2);
  EXPECT_EQ(max_threads(), 2);
}

}  // namespace
}  // namespace coca::parallel_test

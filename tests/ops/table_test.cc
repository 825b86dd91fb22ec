// How an op finds its row, and which threads the row runs on.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/table.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "coca/ops/run.h"

namespace coca::ops::table_test {

struct CountFunctions {
  int (*threads)(Context&);
};
using CountImpl = Implementation<CountFunctions>;

// The largest number of threads at work at the same time. Each task waits a little so that others can join.
int threads_at_work(Context&) {
  std::atomic<int> now = 0, most = 0;
  parallel_for(64, [&](int64_t) {
    const int here = ++now;
    for (int seen = most; here > seen && !most.compare_exchange_weak(seen, here);) {
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    --now;
  });
  return most;
}

const CountImpl count_row{.name = "count", .run = {threads_at_work}};

}  // namespace coca::ops::table_test

namespace coca::ops {

template <>
const Table<table_test::CountImpl>& table_of<table_test::CountImpl>() {
  static constexpr const table_test::CountImpl* kRows[] = {&table_test::count_row};
  static constexpr Table<table_test::CountImpl> kTable{"count", kRows};
  return kTable;
}

}  // namespace coca::ops

namespace coca::ops::table_test {
namespace {

int counted(Context& cx) { return run<CountImpl>(cx, DType::kF32, &CountFunctions::threads); }

// For any calling thread and any number of threads of the process.
TEST(Run, UsesTheThreadsOfItsContext) {
  const int before = max_threads();
  for (const int process : {1, 4})
    for (const int own : {1, 2, 3}) {
      set_max_threads(process);
      Context cx(nullptr, {.forced = {}, .threads = own});
      EXPECT_EQ(counted(cx), own) << process;
      int elsewhere = 0;
      std::thread([&] { elsewhere = counted(cx); }).join();
      EXPECT_EQ(elsewhere, own) << process;
      Context plain;
      EXPECT_EQ(counted(plain), process) << own;
      EXPECT_EQ(max_threads(), process);
    }
  set_max_threads(before);
}

}  // namespace
}  // namespace coca::ops::table_test

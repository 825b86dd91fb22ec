// Messages and the collectives built on them, between threads and with a single rank.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <numeric>
#include <thread>

#include "coca/dist/background.h"
#include "coca/dist/thread_group.h"

namespace coca::dist::communicator_test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// The message from one rank to another. Its length differs for every pair, and some are empty.
std::vector<int> message(int from, int to) {
  std::vector<int> values(static_cast<size_t>((3 * from + 5 * to) % 7 * 100));
  std::iota(values.begin(), values.end(), 1000 * from + 10 * to);
  return values;
}

void check_all_to_all(Communicator& ranks) {
  std::vector<std::vector<int>> out, in;
  std::vector<Send> sends;
  std::vector<Receive> receives;
  for (int r = 0; r < ranks.size(); ++r) {
    out.push_back(message(ranks.rank(), r));
    in.emplace_back(message(r, ranks.rank()).size());
  }
  for (int r = 0; r < ranks.size(); ++r) {
    sends.push_back({r, std::as_bytes(std::span(out[static_cast<size_t>(r)]))});
    receives.push_back({r, std::as_writable_bytes(std::span(in[static_cast<size_t>(r)]))});
  }
  ranks.exchange(sends, receives);
  for (int r = 0; r < ranks.size(); ++r)
    EXPECT_EQ(in[static_cast<size_t>(r)], message(r, ranks.rank())) << ranks.rank() << " from " << r;
}

void check_collectives(Communicator& ranks) {
  const int rank = ranks.rank(), size = ranks.size();
  barrier(ranks);
  const std::vector<int> squares = all_gather_value(ranks, rank * rank);
  for (int r = 0; r < size; ++r) EXPECT_EQ(squares[static_cast<size_t>(r)], r * r);
  const int root = size - 1;
  EXPECT_EQ(broadcast_text(ranks, root, rank == root ? "from the last" : "to be replaced by it"), "from the last");
  const std::vector<std::string> texts = gather_texts(ranks, std::string(static_cast<size_t>(rank), 'x'));
  for (int r = 0; r < size; ++r) EXPECT_EQ(texts[static_cast<size_t>(r)], std::string(static_cast<size_t>(r), 'x'));
}

TEST(Communicator, EveryPairExchangesMessagesOfAnySize) {
  check_all_to_all(alone());
  for (const int size : {1, 2, 3, 5}) run_ranks(size, check_all_to_all);
}

TEST(Communicator, Collectives) {
  check_collectives(alone());
  for (const int size : {1, 2, 3, 5}) run_ranks(size, check_collectives);
}

TEST(Communicator, ADuplicateServesAnotherThreadAtTheSameTime) {
  run_ranks(3, [](Communicator& ranks) {
    const auto other = ranks.duplicate(), third = ranks.duplicate();
    Background background;
    for (int i = 0; i < 20; ++i)
      background.start([&, i] {
        const std::vector<int> got = all_gather_value(*other, 100 * i + other->rank());
        EXPECT_THAT(got, ElementsAre(100 * i, 100 * i + 1, 100 * i + 2));
      });
    for (int i = 0; i < 20; ++i) EXPECT_THAT(all_gather_value(ranks, i + ranks.rank()), ElementsAre(i, i + 1, i + 2));
    background.wait();
    EXPECT_THAT(all_gather_value(*third, ranks.rank()), ElementsAre(0, 1, 2));
  });
}

TEST(Communicator, AnErrorOnOneRankIsAnErrorOnAll) {
  std::atomic<int> failed = 0;
  run_ranks(3, [&](Communicator& ranks) {
    try {
      together(ranks, [&] {
        if (ranks.rank() == 1) fail(ErrorKind::kIo, "the disk is full");
      });
    } catch (const Error& error) {
      ++failed;
      EXPECT_EQ(error.kind(), ErrorKind::kIo);
      EXPECT_EQ(std::string(error.what()), ranks.rank() == 1 ? "the disk is full" : "rank 1: the disk is full");
    }
    barrier(ranks);  // they still agree on what comes next
  });
  EXPECT_EQ(failed, 3);
}

TEST(Communicator, MemoryThatRunsOutOnOneRankIsAnErrorOnAll) {
  run_ranks(2, [&](Communicator& ranks) {
    const auto work = [&] {
      if (ranks.rank() == 1) throw std::bad_alloc();
    };
    try {
      together(ranks, work);
      ADD_FAILURE() << "no error";
    } catch (const SharedError& error) {
      EXPECT_EQ(std::string(error.what()), ranks.rank() == 1 ? "out of memory" : "rank 1: out of memory");
    }
  });
}

// If the lists of the ranks differ in length, value or facts, all ranks report the same difference and can continue.
// Some values contain the separators of the message.
TEST(Communicator, DifferencesBetweenRanksAreNamed) {
  struct Case {
    std::vector<Fact> usual, other;
    std::string says;  // the expected message; rank 2 has the other list
  };
  const std::vector<Fact> facts = {{"--steps", "20"}, {"--text: a b.txt", "12 bytes 3 4"}, {"--out", ""}};
  const std::vector<Case> cases = {
      {facts, facts, ""},
      {{}, {}, ""},
      {facts, {{"--steps", "200"}, facts[1], facts[2]}, "--steps is 20 on rank 0 and 200 on rank 2"},
      {facts,
       {facts[0], {"--text: a b.txt", "12 bytes 3 5"}, facts[2]},
       "--text: a b.txt is 12 bytes 3 4 on rank 0 and 12 bytes 3 5 on rank 2"},
      {facts, {facts[0]}, "rank 0 has --text: a b.txt (12 bytes 3 4), which rank 2 does not have"},
      {{facts[0]}, facts, "rank 2 has --text: a b.txt (12 bytes 3 4), which rank 0 does not have"},
      {{}, facts, "rank 2 has --steps (20), which rank 0 does not have"},
      {facts, {facts[1], facts[0], facts[2]}, "--text: a b.txt comes in another place"}};
  for (const Case& c : cases)
    run_ranks(4, [&](Communicator& ranks) {
      std::string said;
      try {
        require_same(ranks, ranks.rank() == 2 ? c.other : c.usual);
      } catch (const SharedError& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
        said = error.what();
      }
      EXPECT_TRUE(c.says.empty() ? said.empty() : said.starts_with(c.says)) << said;
      barrier(ranks);
    });
  require_same(alone(), facts);
}

TEST(Communicator, TheFirstRankGoesFirst) {
  std::atomic<int> begun = 0;
  run_ranks(4, [&](Communicator& ranks) {
    first_rank_first(ranks, [&] {
      const int before = begun++;
      EXPECT_EQ(before == 0, ranks.rank() == 0);
    });
  });
  EXPECT_EQ(begun, 4);
}

TEST(Communicator, ARankThatLeavesIsNamed) {
  try {
    run_ranks(3, [](Communicator& ranks) {
      if (ranks.rank() == 2) fail(ErrorKind::kNumeric, "rank 2 gave up");
      try {
        barrier(ranks);
        ADD_FAILURE() << "nobody left";
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kIo);
        EXPECT_THAT(error.what(), HasSubstr("has left"));
        throw;
      }
    });
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()), "rank 2 gave up");
  }
}

TEST(Communicator, ASilentRankTimesOutAfterTheGivenTime) {
  setenv("COCA_DIST_TIMEOUT", "0.2", 1);
  run_ranks(2, [](Communicator& ranks) {
    if (ranks.rank() == 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(600));
      return;
    }
    try {
      int never = 0;
      const Receive receive{1, std::as_writable_bytes(std::span(&never, 1))};
      ranks.exchange({}, {&receive, 1});
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("rank 1 has sent nothing for 0.2 s"));
    }
  });
  setenv("COCA_DIST_TIMEOUT", "soon", 1);
  EXPECT_THROW(timeout_seconds(), Error);
  unsetenv("COCA_DIST_TIMEOUT");
  EXPECT_EQ(timeout_seconds(), 600);
}

TEST(Background, DoesTasksInOrderAndKeepsTheFirstError) {
  Background background;
  std::vector<int> done;
  for (int i = 0; i < 100; ++i) background.start([&, i] { done.push_back(i); });
  background.wait();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(done[static_cast<size_t>(i)], i);
  background.start([] { fail(ErrorKind::kIo, "the link is cut"); });
  background.start([&] { done.clear(); });
  EXPECT_THROW(background.wait(), Error);
  EXPECT_EQ(done.size(), 100u);
  background.start([&] { done.clear(); });
  background.wait();
  EXPECT_TRUE(done.empty());
}

}  // namespace
}  // namespace coca::dist::communicator_test

// Errors, checks, enum names, the log and the stop flag.
// SPDX-License-Identifier: Apache-2.0
#include "coca/base/error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "coca/base/clock.h"
#include "coca/base/enum_names.h"
#include "coca/base/log.h"
#include "coca/base/memory.h"
#include "coca/base/stop.h"
#include "coca/base/version.h"

namespace coca::test {
enum class Fruit { kApple, kPear, kUnnamed };
}

COCA_ENUM_NAMES(coca::test::Fruit, "fruit", {coca::test::Fruit::kApple, "apple"}, {coca::test::Fruit::kPear, "pear"})

namespace coca::error_test {
namespace {

using test::Fruit;

// The kind and message that `body` throws.
template <typename Body>
std::pair<ErrorKind, std::string> thrown(Body body) {
  try {
    body();
  } catch (const Error& e) {
    return {e.kind(), e.what()};
  }
  return {ErrorKind::kInternal, "nothing was thrown"};
}

TEST(Error, FailFormatsAndKeepsTheKind) {
  const auto [kind, text] = thrown([] { fail(ErrorKind::kBadFile, "{}: {} of {} bytes", "a.bin", 3, 4); });
  EXPECT_EQ(kind, ErrorKind::kBadFile);
  EXPECT_EQ(text, "a.bin: 3 of 4 bytes");
}

TEST(Error, ChecksThrowOnlyWhenFalse) {
  const int H = 6, G = 4;
  EXPECT_NO_THROW(COCA_CHECK(H % 2 == 0, "unused {}", H));
  const auto [kind, text] =
      thrown([&] { COCA_CHECK(H % G == 0, "[attention] H={} must be a multiple of G={}", H, G); });
  EXPECT_EQ(kind, ErrorKind::kInvalidArgument);
  EXPECT_EQ(text, "[attention] H=6 must be a multiple of G=4");
  EXPECT_EQ(thrown([] { COCA_CHECK_AS(kIo, false, "gone"); }).first, ErrorKind::kIo);
}

TEST(Error, MessagesWithBracesInValuesAreKept) {
  EXPECT_EQ(thrown([] { fail(ErrorKind::kIo, "{}", "{not a field}"); }).second, "{not a field}");
}

TEST(Error, EveryKindHasAName) {
  for (const ErrorKind kind : {ErrorKind::kInvalidArgument, ErrorKind::kBadFile, ErrorKind::kIo, ErrorKind::kNumeric,
                               ErrorKind::kInterrupted, ErrorKind::kInternal})
    EXPECT_STRNE(error_kind_name(kind), "error");
}

TEST(Error, DebugChecksNameTheirPlace) {
  const auto [kind, text] = thrown([] { detail::debug_check_failed("i < n", "view.h", 12); });
  EXPECT_EQ(kind, ErrorKind::kInternal);
  EXPECT_EQ(text, "view.h:12: internal check failed: i < n");
}

TEST(EnumNames, BothWays) {
  EXPECT_EQ(enum_name(Fruit::kPear), "pear");
  EXPECT_EQ(enum_name(Fruit::kUnnamed), "?");
  EXPECT_EQ(enum_from_name<Fruit>("apple"), Fruit::kApple);
  EXPECT_EQ(enum_choices<Fruit>(), "apple, pear");
}

TEST(EnumNames, UnknownNamesListTheChoices) {
  const auto [kind, text] = thrown([] { enum_from_name<Fruit>("Apple"); });
  EXPECT_EQ(kind, ErrorKind::kInvalidArgument);
  EXPECT_EQ(text, "fruit: unknown value \"Apple\"; expected one of apple, pear; did you mean apple?");
}

TEST(Log, SilentUntilASinkIsSet) {
  log_info("nobody hears {}", 1);
  std::vector<std::string> heard;
  set_log_sink([&](LogLevel level, std::string_view text) {
    heard.push_back(std::to_string(static_cast<int>(level)) + ":" + std::string(text));
  });
  log_debug("a");
  log_info("b {}", 2);
  log_warning("c");
  set_log_sink({});
  log_warning("d");
  EXPECT_THAT(heard, testing::ElementsAre("0:a", "1:b 2", "2:c"));
}

TEST(Stop, FlagIsSetAndCleared) {
  EXPECT_FALSE(stop_requested());
  request_stop();
  EXPECT_TRUE(stop_requested());
  clear_stop();
  EXPECT_FALSE(stop_requested());
}

TEST(Facts, ClockMemoryAndVersion) {
  const Stopwatch watch;
  EXPECT_GE(watch.seconds(), 0.0);
  EXPECT_LT(watch.seconds(), 60.0);
  EXPECT_GT(peak_resident_bytes(), 1 << 20);
  EXPECT_FALSE(version().empty());
  EXPECT_FALSE(git_commit().empty());
}

}  // namespace
}  // namespace coca::error_test

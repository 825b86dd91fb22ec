// SPDX-License-Identifier: Apache-2.0
#include "coca/text/stop_strings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coca/base/error.h"

namespace coca::text::stop_strings_test {
namespace {

// For any split of the text into pieces, the output is the text up to the first stop string.
void expect_shown(const std::vector<std::string>& stops, const std::string& text, const std::string& shown,
                  bool matched) {
  for (size_t step = 1; step <= text.size() + 1; ++step) {
    StopStrings s(stops);
    std::string out;
    for (size_t at = 0; at < text.size(); at += step) {
      out += s.push(std::string_view(text).substr(at, step));
      EXPECT_TRUE(shown.starts_with(out)) << out << " was given out too early, pieces of " << step;
    }
    out += s.finish();
    EXPECT_EQ(out, shown) << "pieces of " << step;
    EXPECT_EQ(s.matched(), matched);
  }
}

TEST(StopStrings, EndTheTextWhereverItIsCut) {
  expect_shown({}, "all of it", "all of it", false);
  expect_shown({"User:"}, "Hello. User: more", "Hello. ", true);
  expect_shown({"\n\n", "END"}, "a\nb EN c\nEND d\n\n", "a\nb EN c\n", true);
  expect_shown({"aab"}, "aaaab", "aa", true);
  expect_shown({"abc", "bcd"}, "xabd abce", "xabd ", true);
  expect_shown({"stop"}, "it does not sto", "it does not sto", false);
  expect_shown({"b", "abc"}, "zabc", "za", true);  // the stop string that is completed first
}

TEST(StopStrings, NothingIsHeldBackThatCannotMatch) {
  StopStrings s({"###"});
  EXPECT_EQ(s.push("a#b"), "a#b");
  EXPECT_EQ(s.push("c##"), "c");
  EXPECT_EQ(s.push("d"), "##d");
}

TEST(StopStrings, EmptyOnesAreRefused) {
  EXPECT_THAT([] { StopStrings({"a", ""}); }, testing::ThrowsMessage<Error>(testing::HasSubstr("empty")));
}

}  // namespace
}  // namespace coca::text::stop_strings_test

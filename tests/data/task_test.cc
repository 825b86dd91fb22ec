// The windows of synthetic tasks, checked against what docs/tasks.md says they hold: every answer follows from the
// window, and from one place of it alone.
// SPDX-License-Identifier: Apache-2.0
#include "coca/data/task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "coca/base/error.h"
#include "coca/data/packing.h"

namespace coca::data::task_test {
namespace {

using testing::HasSubstr;

constexpr int64_t kLength = 128, kSymbols = 256;

const text::Tokenizer& symbols() {
  static const auto tokenizer = text::make_symbol_tokenizer(kSymbols);
  return *tokenizer;
}
const text::Tokenizer& bytes() {
  static const auto tokenizer = text::make_byte_tokenizer();
  return *tokenizer;
}
const TokenFile& lines() {  // a text of 40 tokens, shorter than most windows
  static const TokenFile file =
      TokenFile::from_tokens(bytes().encode("the rain in spain stays on the plain; ok"), {0, 40}, 257);
  return file;
}

TaskWindow make(Task task, uint64_t seed, const TaskSizes& sizes = {}, int64_t length = kLength,
                const text::Tokenizer& tokenizer = symbols()) {
  Rng rng(seed);
  const TaskMaker maker(sizes, kLength, tokenizer);
  maker.check(task, length);
  return maker.window(task, length, rng, lines());
}

int64_t asked(const TaskWindow& w) {
  return std::ranges::count_if(w.targets, [](int32_t id) { return id != kNoTarget; });
}
std::vector<size_t> places_asked(const TaskWindow& w) {
  std::vector<size_t> places;
  for (size_t i = 0; i < w.targets.size(); ++i)
    if (w.targets[i] != kNoTarget) places.push_back(i);
  return places;
}

class Tasks : public testing::TestWithParam<Task> {};
INSTANTIATE_TEST_SUITE_P(All, Tasks, testing::Values(Task::kMqar, Task::kCopying, Task::kIndirectIndex, Task::kNeedle),
                         [](const auto& about) {
                           std::string name(enum_name(about.param));
                           std::erase(name, '-');
                           return name;
                         });

TEST_P(Tasks, AreFunctionsOfTheSeedAndFillTheirWindow) {
  for (const text::Tokenizer* tokenizer : {&symbols(), &bytes()})
    for (const int64_t length : {kLength, 2 * kLength, 4 * kLength, kLength + 3}) {
      std::set<std::vector<int32_t>> seen;
      for (uint64_t seed = 0; seed < 20; ++seed) {
        const TaskWindow w = make(GetParam(), seed, {}, length, *tokenizer);
        EXPECT_EQ(w.ids.size(), static_cast<size_t>(length));
        EXPECT_EQ(w.targets.size(), w.ids.size());
        EXPECT_GT(asked(w), 0);
        for (const int32_t id : w.ids) EXPECT_TRUE(id >= 0 && id < tokenizer->vocab_size()) << id;
        EXPECT_EQ(make(GetParam(), seed, {}, length, *tokenizer).ids, w.ids);
        EXPECT_TRUE(seen.insert(w.ids).second) << seed;
      }
    }
}

TEST_P(Tasks, RefuseWindowsWithoutRoom) {
  for (const text::Tokenizer* tokenizer : {&symbols(), &bytes()}) try {
      TaskMaker({.pairs = 2, .string = 3, .needles = 1}, kLength, *tokenizer).check(GetParam(), 6);
      ADD_FAILURE() << "no Error";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(std::string(enum_name(GetParam())))) << error.what();
      EXPECT_THAT(error.what(), HasSubstr("6 tokens")) << error.what();
    }
}

TEST_P(Tasks, RefuseVocabulariesThatAreTooSmall) {
  const auto few = text::make_symbol_tokenizer(2);
  EXPECT_THROW(TaskMaker({.pairs = 4}, kLength, *few).check(GetParam(), kLength), Error);
}

// Each key stands once among the pairs and is asked for once; its value is not shown at the question.
TEST(Mqar, AsksForEachPairOnce) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const TaskSizes sizes{.pairs = seed % 2 == 0 ? 0 : 7};
    const size_t P = seed % 2 == 0 ? kLength / 8 : 7;
    const TaskWindow w = make(Task::kMqar, seed, sizes);
    std::map<int32_t, int32_t> pairs;
    std::set<int32_t> values;
    for (size_t i = 0; i < P; ++i) {
      EXPECT_TRUE(pairs.emplace(w.ids[2 * i], w.ids[2 * i + 1]).second);
      EXPECT_TRUE(values.insert(w.ids[2 * i + 1]).second);
      EXPECT_LT(w.ids[2 * i], kSymbols / 2);
      EXPECT_GE(w.ids[2 * i + 1], kSymbols / 2);
    }
    const std::vector<size_t> places = places_asked(w);
    EXPECT_EQ(places.size(), P);
    std::set<int32_t> asked;
    for (const size_t at : places) {
      EXPECT_GE(at, 2 * P);
      EXPECT_EQ(w.targets[at], pairs.at(w.ids[at]));
      EXPECT_TRUE(asked.insert(w.ids[at]).second);
    }
  }
}

// The published power law: half of the questions' mass lies well within the first half of the gaps.
TEST(Mqar, QuestionsAreMoreOftenNear) {
  double mean = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    const TaskWindow w = make(Task::kMqar, seed, {.pairs = 1});
    mean += static_cast<double>(places_asked(w).front() - 2) / 2 / 100;
  }
  // Weights (g + 1)^-0.9 over 63 gaps have the mean sum g w / sum w = 14.2, an even draw 31; the standard deviation
  // is 16.6, so a mean of 100 stays within 4 * 1.66.
  EXPECT_NEAR(mean, 14.2, 6.7);
}

TEST(Copying, RepeatsTheStringBehindTheMark) {
  std::set<size_t> distances;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const TaskWindow w = make(Task::kCopying, seed);
    const size_t S = kLength / 4;
    const std::vector<size_t> places = places_asked(w);
    ASSERT_EQ(places.size(), S);
    EXPECT_EQ(places.front(), kLength - S);
    EXPECT_EQ(places.back(), static_cast<size_t>(kLength) - 1);
    EXPECT_EQ(w.ids[places.front()], 0);
    const auto mark = static_cast<size_t>(std::ranges::find(w.ids, 0) - w.ids.begin());
    ASSERT_LT(mark, places.front());
    EXPECT_EQ(std::ranges::count(w.ids, 0), 2);
    for (size_t i = 0; i < S; ++i) EXPECT_EQ(w.targets[places[i]], w.ids[mark + 1 + i]);
    distances.insert(places.front() - mark);
  }
  EXPECT_GT(distances.size(), 20U);  // the gap varies
}

TEST(IndirectIndex, AnswersStandTheNamedShiftFromTheNamedSymbol) {
  constexpr int64_t kShifts = 15, kFirst = 1 + 2 * kShifts;  // an eighth of 128 tokens, at most 15
  std::set<int64_t> lengths, shifts;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const TaskWindow w = make(Task::kIndirectIndex, seed);
    std::vector<size_t> marks;
    for (size_t i = 0; i < w.ids.size(); ++i)
      if (w.ids[i] == 0) marks.push_back(i);
    const size_t end = marks.back(), begin = marks[marks.size() - 2] + 1;
    const std::vector<int32_t> text(w.ids.begin() + static_cast<std::ptrdiff_t>(begin),
                                    w.ids.begin() + static_cast<std::ptrdiff_t>(end));
    lengths.insert(static_cast<int64_t>(text.size()));
    EXPECT_EQ(std::set<int32_t>(text.begin(), text.end()).size(), text.size());
    const std::vector<size_t> places = places_asked(w);
    EXPECT_EQ(places.size(), (kLength - kLength / 4 - 1) / 3U);
    for (const size_t at : places) {
      const int32_t symbol = w.ids[at];
      const int64_t shift = symbol <= kShifts ? symbol - 1 - kShifts : symbol - kShifts;
      shifts.insert(shift);
      const auto named = std::ranges::find(text, w.ids[at - 1]) - text.begin();
      ASSERT_TRUE(named + shift >= 0 && named + shift < static_cast<int64_t>(text.size())) << named << " " << shift;
      EXPECT_EQ(w.targets[at], text[static_cast<size_t>(named + shift)]);
      EXPECT_GE(w.targets[at], kFirst);
    }
  }
  EXPECT_GT(lengths.size(), 10U);
  EXPECT_EQ(shifts.size(), 2U * kShifts);  // all but 0
  EXPECT_FALSE(shifts.contains(0));
}

TEST(Needle, OnlyOnePhraseLeadsToTheDigits) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const TaskWindow w = make(Task::kNeedle, seed, {.needles = 4});
    const std::vector<size_t> places = places_asked(w);
    ASSERT_EQ(places.size(), 5U);
    const std::vector<int32_t> question(w.ids.begin() + kLength - 7, w.ids.begin() + kLength - 4);  // mark and phrase
    EXPECT_EQ(question.front(), 0);
    EXPECT_EQ(std::ranges::count(w.ids, 0), 5);  // marks of four needles and of the question
    const auto found = std::ranges::search(w.ids, question);
    for (size_t i = 0; i < 5; ++i) EXPECT_EQ(w.targets[places[i]], found.end()[static_cast<std::ptrdiff_t>(i)]);
    const std::vector<int32_t> digits(found.end(), found.end() + 5);
    for (const int32_t digit : digits) EXPECT_TRUE(digit >= 1 && digit <= 10) << digit;
    // Behind it, the question alone has the phrase again.
    EXPECT_EQ(std::search(found.end(), w.ids.end(), question.begin(), question.end()), w.ids.end() - 7);
  }
}

TEST(Needle, IsTextInTextWithItsQuestionAtTheEnd) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const TaskWindow w = make(Task::kNeedle, seed, {}, 2 * kLength, bytes());
    const std::string text = bytes().decode(w.ids);
    const std::vector<size_t> places = places_asked(w);
    ASSERT_EQ(places.size(), 5U);
    std::string answer;
    for (const size_t at : places) answer += static_cast<char>(w.targets[at]);
    const std::string question = text.substr(text.rfind('\n'), text.size() - 4 - text.rfind('\n'));
    EXPECT_TRUE(question.ends_with(": ")) << question;
    EXPECT_EQ(text.find(question + answer + "\n"), text.find(question)) << text;
    EXPECT_EQ(std::ranges::count(text, ':'), 5);  // a needle for 64 tokens, and the question
    EXPECT_THAT(text, HasSubstr("ain"));          // of the text
  }
}

// In a tokenizer's tokens, symbols are printable.
TEST(TextTasks, UsePrintableTokens) {
  for (const Task task : {Task::kMqar, Task::kCopying, Task::kIndirectIndex})
    for (const int32_t id : make(task, 1, {}, kLength, bytes()).ids) EXPECT_TRUE(id > ' ' && id <= '~') << id;
}

}  // namespace
}  // namespace coca::data::task_test

// RULER's prompts: they fit their length, contain their answers, and depend only on the seed. Word counts are
// recounted.
// SPDX-License-Identifier: Apache-2.0
#include "coca/data/ruler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "coca/base/error.h"
#include "coca/data/words.h"

namespace coca::data::ruler_test {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

const text::Tokenizer& bytes() {
  static const auto tokenizer = text::make_byte_tokenizer();
  return *tokenizer;
}

RulerPrompt make(RulerTask task, int64_t tokens, uint64_t seed, const std::string& haystack = {}) {
  Rng rng(seed);
  return make_ruler_prompt(task, tokens, bytes(), rng, haystack);
}

int64_t count(const std::string& text, const std::string& part) {
  int64_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

const EnumName<RulerTask>* find(RulerTask task) {
  for (const auto& entry : EnumTraits<RulerTask>::names())
    if (entry.value == task) return &entry;
  return nullptr;
}

class Ruler : public testing::TestWithParam<RulerTask> {};
INSTANTIATE_TEST_SUITE_P(Tasks, Ruler, testing::ValuesIn([] {
                           std::vector<RulerTask> tasks;
                           for (const auto& entry : EnumTraits<RulerTask>::names()) tasks.push_back(entry.value);
                           return tasks;
                         }()),
                         [](const auto& about) { return std::string(find(about.param)->name); });

TEST_P(Ruler, PromptsFitAndNearlyFillTheirLength) {
  for (const int64_t tokens : {3000, 9000})
    for (const uint64_t seed : {1, 2, 3}) {
      const RulerPrompt prompt = make(GetParam(), tokens, seed);
      const auto used = static_cast<int64_t>(bytes().encode(prompt.text).size());
      EXPECT_LE(used, tokens);
      EXPECT_GE(used, tokens - 250);  // the next needle, or the next line or word with all its repeats, did not fit
      const std::set<std::string> unique(prompt.answers.begin(), prompt.answers.end());
      EXPECT_EQ(unique.size(), prompt.answers.size());
      for (const std::string& answer : prompt.answers) EXPECT_GE(count(prompt.text, answer), 1) << answer;
    }
}

TEST_P(Ruler, PromptsFollowFromTheirSeed) {
  EXPECT_EQ(make(GetParam(), 3000, 1).text, make(GetParam(), 3000, 1).text);
  EXPECT_NE(make(GetParam(), 3000, 1).answers, make(GetParam(), 3000, 2).answers);
}

TEST_P(Ruler, TooShortALengthIsNamed) {
  EXPECT_THAT([] { make(GetParam(), 150, 1); },
              testing::ThrowsMessage<Error>(
                  testing::AllOf(HasSubstr(std::string(find(GetParam())->name)), HasSubstr(" in all"))));
}

TEST(RulerNeedles, SingleNeedle) {
  const RulerPrompt prompt = make(RulerTask::kNiahSingle1, 2000, 5);
  ASSERT_EQ(prompt.answers.size(), 1u);
  EXPECT_THAT(prompt.answers[0], testing::MatchesRegex("[1-9][0-9]{6}"));
  EXPECT_THAT(prompt.text,
              StartsWith("A special magic number is hidden within the following text. Make sure to memorize it. "
                         "I will quiz you about the number afterwards.\n"));
  const size_t needle = prompt.text.find("One of the special magic numbers for ");
  const size_t begin = needle + std::string("One of the special magic numbers for ").size();
  const std::string key = prompt.text.substr(begin, prompt.text.find(" is: ", begin) - begin);
  EXPECT_EQ(count(prompt.text, "One of the special magic numbers for " + key + " is: " + prompt.answers[0] + "."), 1);
  EXPECT_EQ(count(prompt.text, prompt.answers[0]), 1);
  EXPECT_THAT(prompt.text, EndsWith("\nWhat is the special magic number for " + key +
                                    " mentioned in the provided text? The special magic number for " + key +
                                    " mentioned in the provided text is"));
}

TEST(RulerNeedles, EachOfSeveralOccursOnce) {
  struct Case {
    RulerTask task;
    int64_t needles;  // including those of the answers; -1: as many as fit
    size_t answers;
  };
  for (const Case c : {Case{RulerTask::kNiahMultikey1, 4, 1},
                       {RulerTask::kNiahMultivalue, 4, 4},
                       {RulerTask::kNiahMultiquery, 4, 4},
                       {RulerTask::kNiahMultikey2, -1, 1}}) {
    const RulerPrompt prompt = make(c.task, 4000, 3);
    SCOPED_TRACE(prompt.text.substr(0, 400));
    EXPECT_EQ(prompt.answers.size(), c.answers);
    const int64_t needles = count(prompt.text, "One of the special magic numbers for ");
    EXPECT_TRUE(c.needles < 0 ? needles > 30 : needles == c.needles) << needles;
    for (const std::string& answer : prompt.answers) EXPECT_EQ(count(prompt.text, " is: " + answer + "."), 1);
    EXPECT_EQ(c.answers > 1, prompt.text.starts_with("Some special magic numbers are hidden"));
  }
  const RulerPrompt uuids = make(RulerTask::kNiahMultikey3, 4000, 3);
  EXPECT_THAT(uuids.answers[0],
              testing::MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
  EXPECT_THAT(uuids.text, HasSubstr("What is the special magic uuid for "));
}

TEST(RulerNeedles, TextIsTheHaystackWhereThereIsOne) {
  const std::string essay = "Work is hard.  It\npays, Mr. Dee! Does it?";
  const RulerPrompt prompt = make(RulerTask::kNiahSingle2, 1500, 3, essay);
  EXPECT_THAT(prompt.text, HasSubstr("Work is hard. It pays, Mr."));
  EXPECT_THAT(prompt.text, testing::Not(HasSubstr("The grass is green")));
  EXPECT_THAT(make(RulerTask::kNiahSingle1, 1500, 3, essay).text, HasSubstr("The grass is green"));
}

TEST(RulerTracking, TheChainIsInOrderAfterASolvedExample) {
  const RulerPrompt prompt = make(RulerTask::kVariableTracking, 3000, 4);
  ASSERT_EQ(prompt.answers.size(), 5u);
  size_t at = prompt.text.find("VAR " + prompt.answers[0] + " = ");
  for (size_t i = 1; i < 5; ++i) {
    const size_t next = prompt.text.find("VAR " + prompt.answers[i] + " = VAR " + prompt.answers[i - 1]);
    ASSERT_NE(next, std::string::npos);
    EXPECT_GT(next, at);
    at = next;
  }
  EXPECT_EQ(count(prompt.text, "Memorize and track the chain(s)"), 2);
  EXPECT_THAT(prompt.text, EndsWith(", they are: "));
}

std::map<std::string, int> frequencies(const std::string& list) {
  std::map<std::string, int> counts;
  std::istringstream words(list);
  for (std::string word; words >> word;) ++counts[word];
  return counts;
}

TEST(RulerWords, TheAnswersAreTheMostFrequent) {
  for (const auto& [tokens, common, other] : {std::tuple{3000, 6, 1}, {9000, 30, 3}}) {
    const RulerPrompt prompt = make(RulerTask::kCommonWords, tokens, 4);
    ASSERT_EQ(prompt.answers.size(), 10u);
    const size_t begin = prompt.text.rfind("appear most often.\n"), end = prompt.text.rfind("\nQuestion");
    for (const auto& [word, n] : frequencies(prompt.text.substr(begin + 19, end - begin - 19))) {
      if (word.back() == '.') continue;  // the number of a word in the list, such as 12.
      EXPECT_EQ(n, std::ranges::count(prompt.answers, word) ? common : other) << word;
    }
  }
  const RulerPrompt coded = make(RulerTask::kFrequentWords, 3000, 4);
  const size_t begin = coded.text.find("coded words. ") + 13;
  auto counts = frequencies(coded.text.substr(begin, coded.text.find("\nQuestion") - begin));
  ASSERT_EQ(coded.answers.size(), 3u);
  EXPECT_GT(counts["..."], counts[coded.answers[0]]);
  EXPECT_GT(counts[coded.answers[0]], counts[coded.answers[1]]);
  EXPECT_GT(counts[coded.answers[1]], counts[coded.answers[2]]);
  for (const auto& [word, n] : counts) {
    if (word == "..." || std::ranges::count(coded.answers, word) > 0) continue;
    EXPECT_LT(n, counts[coded.answers[2]]) << word;
  }
}

// The answers, worked out from the text of the prompts.
TEST(RulerFacts, TheLastPlaceIsTheAnswer) {
  const std::string essay = "Work is hard.  It\npays, Mr. Dee! Does it?";
  for (const uint64_t seed : {1, 2, 3, 4, 5}) {
    const RulerPrompt one = make(RulerTask::kFactOne, 2500, seed, essay),
                      two = make(RulerTask::kFactTwo, 2500, seed, essay);
    EXPECT_THAT(one.text, HasSubstr("Work is hard. "));
    EXPECT_EQ(count(one.text, " went to the "), 9);
    EXPECT_EQ(count(two.text, " went to the "), 9);
    EXPECT_EQ(count(two.text, " took the "), 2);
    const auto asked = [](const std::string& text, const std::string& before) {
      const size_t at = text.rfind(before) + before.size();
      return text.substr(at, text.find(" now?", at) - at);
    };
    const auto last_place = [](const std::string& text, const std::string& person) {
      const std::string went = person + " went to the ";
      const size_t at = text.rfind(went) + went.size();
      return text.substr(at, text.find('.', at) - at);
    };
    const std::string person = asked(one.text, "Where is ");
    EXPECT_EQ(last_place(one.text, person), one.answers.at(0));
    EXPECT_THAT(one.text, EndsWith("Answer: " + person + " is in the"));
    const std::string taken = " took the " + asked(two.text, "Where is the ") + ".";
    const size_t end = two.text.find(taken), begin = two.text.rfind(' ', end - 1) + 1;
    ASSERT_NE(end, std::string::npos);
    const std::string carrier = two.text.substr(begin, end - begin);
    EXPECT_EQ(last_place(two.text, carrier), two.answers.at(0));
    EXPECT_GT(two.text.rfind(carrier + " went to the "), end) << "the thing was carried there";
  }
}

TEST(RulerGraphs, TheAnswersFollowTheEdges) {
  for (const uint64_t seed : {1, 2, 3}) {
    const auto edges_of = [](const std::string& text) {
      std::multimap<std::string, std::string> edges;
      std::istringstream lines(text);
      for (std::string line; std::getline(lines, line);)
        if (line.size() == 16 && line.substr(6, 4) == " -> ") edges.emplace(line.substr(0, 6), line.substr(10));
      return edges;
    };
    const auto asked = [](const std::string& text, const std::string& before) {
      return text.substr(text.find(before) + before.size(), 6);
    };
    const RulerPrompt parents = make(RulerTask::kGraphParents, 2000, seed);
    std::set<std::string> found;
    for (const auto& [from, to] : edges_of(parents.text))
      if (to == asked(parents.text, "Which nodes have an edge to ")) found.insert(from);
    EXPECT_EQ(found, (std::set<std::string>{parents.answers.begin(), parents.answers.end()}));
    EXPECT_EQ(found.size(), 2u);
    const RulerPrompt steps = make(RulerTask::kGraphSteps, 2000, seed);
    const auto edges = edges_of(steps.text);
    EXPECT_GT(edges.size(), 50u);
    found.clear();
    const auto [begin, end] = edges.equal_range(asked(steps.text, "are exactly two steps from "));
    for (auto first = begin; first != end; ++first) {
      const auto [from, to] = edges.equal_range(first->second);
      for (auto second = from; second != to; ++second) found.insert(second->second);
    }
    EXPECT_EQ(found, (std::set<std::string>{steps.answers.begin(), steps.answers.end()}));
    EXPECT_EQ(found.size(), 2u);
  }
}

TEST(RulerRequests, TheSecondAnswerIsAskedFor) {
  const RulerPrompt prompt = make(RulerTask::kRepeatedRequest, 2500, 3);
  const std::string repeat = "Repeat your second line about ";
  const size_t at = prompt.text.find(repeat) + repeat.size();
  const std::string topic = prompt.text.substr(at, prompt.text.find('.', at) - at);
  const std::string request = "User: Write a line about " + topic + ".\nAssistant: ";
  EXPECT_EQ(count(prompt.text, request), 3);
  const size_t first = prompt.text.find(request), second = prompt.text.find(request, first + 1) + request.size();
  std::string words;
  for (const std::string& word : prompt.answers) words += (words.empty() ? "" : " ") + word;
  EXPECT_EQ(prompt.text.substr(second, words.size() + 1), words + ".");
  EXPECT_EQ(prompt.answers.size(), 4u);
}

TEST(Words, AreMadeByRule) {
  Rng rng(1);
  std::set<std::string> words;
  for (int i = 0; i < 1000; ++i) words.insert(made_up_word(rng));
  EXPECT_GT(words.size(), 950u);
  for (const std::string& word : words) EXPECT_THAT(word, testing::MatchesRegex("([b-z][aeiou][lmnrst]?){2,3}"));
  EXPECT_THAT(random_number(rng, 7), testing::MatchesRegex("[1-9][0-9]{6}"));
  EXPECT_THAT(random_letters(rng, 5, 'A'), testing::MatchesRegex("[A-Z]{5}"));
}

}  // namespace
}  // namespace coca::data::ruler_test

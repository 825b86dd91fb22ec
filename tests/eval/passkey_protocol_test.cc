// Each named passkey protocol: the prompts must be those of its published script, and answers must be judged by its
// rule.
// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/passkey_protocol.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "coca/eval/passkey.h"

namespace coca::eval::passkey_protocol_test {

void PrintTo(const NamedPasskeyProtocol& named, std::ostream* out) {
  *out << named.name;
}  // GoogleTest would print the bytes, some of which are padding

namespace {

using data::PasskeyLength;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

const std::string kFive = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

std::string repeated(const std::string& text, int64_t count) {
  std::string out;
  for (int64_t i = 0; i < count; ++i) out += text;
  return out;
}

int64_t occurrences(const std::string& text, const std::string& what) {
  int64_t n = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

class PasskeyProtocols : public testing::TestWithParam<NamedPasskeyProtocol> {
 protected:
  const std::unique_ptr<text::Tokenizer> tokenizer_ = text::make_byte_tokenizer();

  // Prompt `i` of one length, at a random depth or in the middle. One byte is one token.
  PasskeyTrial trial(int64_t length, int64_t i, std::optional<int32_t> bos = std::nullopt) const {
    const PasskeyOptions o{.protocol = GetParam().protocol};
    const std::optional<double> depth = o.protocol.place == PasskeyPlace::kDepths ? std::optional(0.5) : std::nullopt;
    return make_passkey_trial(*tokenizer_, o, bos, plan_passkey(*tokenizer_, o, bos, length), depth, i);
  }
};
INSTANTIATE_TEST_SUITE_P(All, PasskeyProtocols, testing::ValuesIn(named_passkey_protocols()), [](const auto& named) {
  std::string name(named.param.name);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST_P(PasskeyProtocols, AreValid) {
  EXPECT_NO_THROW(check_protocol(GetParam().protocol));
  EXPECT_FALSE(GetParam().source.empty());
  EXPECT_TRUE(std::ranges::is_sorted(GetParam().protocol.lengths));
}

TEST_P(PasskeyProtocols, KeysFillTheirRangeAndPlacesDiffer) {
  const PasskeyProtocol& p = GetParam().protocol;
  std::set<std::string> prompts;
  int64_t least = p.keys.most, most = p.keys.least;
  for (int64_t i = 0; i < 200; ++i) {
    const PasskeyTrial t = trial(2000, i);
    EXPECT_GE(t.key, p.keys.least);
    EXPECT_LE(t.key, p.keys.most);
    least = std::min(least, t.key);
    most = std::max(most, t.key);
    const std::string text = tokenizer_->decode(t.ids);
    prompts.insert(text.substr(0, text.find("The pass")));
    EXPECT_EQ(occurrences(text, std::to_string(t.key)) >= 2, true) << text;
    EXPECT_EQ(static_cast<size_t>(t.answer_start) == t.ids.size(), p.rule != PasskeyRule::kExact);
  }
  // The chance that 200 draws miss the lowest or the highest twentieth of the range is 2 * 0.95^200 = 7e-5.
  EXPECT_LT(least, p.keys.least + (p.keys.most - p.keys.least) / 20);
  EXPECT_GT(most, p.keys.most - (p.keys.most - p.keys.least) / 20);
  EXPECT_EQ(prompts.size() > 5, p.place != PasskeyPlace::kDepths);
}

// Counts the garbage text in the prompt.
TEST_P(PasskeyProtocols, LengthsHaveTheMeaningOfTheScript) {
  const PasskeyProtocol& p = GetParam().protocol;
  const int64_t length = 3000;
  if (p.length_control == PasskeyLength::kTokens) {
    // The longest prompt that fits together with its answer. Rule "contains" does not append the answer.
    const PasskeyTrial t = trial(length, 0);
    const auto tokens = t.answer_start + static_cast<int64_t>(t.answer.size());
    EXPECT_LE(tokens, length);
    EXPECT_GE(tokens, length - 2);
    return;
  }
  for (int64_t i = 0; i < 20; ++i) {
    const PasskeyTrial t = trial(length, i);
    const std::string text = tokenizer_->decode(std::span(t.ids).first(static_cast<size_t>(t.answer_start)));
    const std::string key = std::to_string(t.key),
                      sentence = "The pass key is " + key + ". Remember it. " + key + " is the pass key.";
    if (p.length_control == PasskeyLength::kSentences) {
      // In bytes: (3000 - 64 - 2) / 89, since "The pass key is {KEY}. Remember it. {KEY} is the pass key." takes 58.
      const int64_t units = (length - 58 - 2) / 89;
      EXPECT_EQ(occurrences(text, kFive), units);
      EXPECT_THAT(
          text,
          StartsWith("There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. "));
      EXPECT_THAT(
          text,
          EndsWith(
              "There and back again. What is the pass key? The pass key is "));  // the key never follows the last unit
      EXPECT_EQ(text.find('\n'), std::string::npos);
      EXPECT_EQ(text.find("  "), std::string::npos);
      EXPECT_EQ(t.answer, key);
      continue;
    }
    const size_t first = text.find('\n') + 1, second = text.find('\n', first) + 1, third = text.find('\n', second) + 1,
                 fourth = text.find('\n', third) + 1;
    const std::string before = text.substr(first, second - first - 1), after = text.substr(third, fourth - third - 1);
    EXPECT_EQ(text.substr(second, third - second - 1), sentence);
    EXPECT_EQ(text.substr(fourth), "What is the pass key? The pass key is");
    EXPECT_EQ(t.answer, " " + key);
    const auto amount = static_cast<int64_t>(before.size() + after.size());
    const std::string endless =
        p.length_control == PasskeyLength::kUnits ? repeated(kFive, 200) : repeated(kFive + " ", 200);
    EXPECT_THAT(endless, StartsWith(before));
    EXPECT_THAT(endless, StartsWith(after));
    switch (p.length_control) {
      case PasskeyLength::kCharacters: EXPECT_EQ(amount, length); break;
      case PasskeyLength::kCharacters365: EXPECT_EQ(amount, 10950); break;  // 3.65 * 3000
      case PasskeyLength::kCharacters375: EXPECT_EQ(amount, 10240); break;  // int(3.75 * 3 * 1000 // 1024 * 1024)
      case PasskeyLength::kUnits: EXPECT_EQ(amount, 117 * 89); break;       // (3000 - 32 - 26 - 11) // 25
      case PasskeyLength::kGrown: {
        EXPECT_EQ(amount % 128, 0);
        // 128 more bytes would make the prompt at least as long as requested. The script measures with a key of five
        // digits.
        const auto with_five = static_cast<int64_t>(text.size()) + 2 * (5 - static_cast<int64_t>(key.size()));
        EXPECT_LT(with_five, length);
        EXPECT_GE(with_five + 128, length);
        break;
      }
      default: FAIL();
    }
  }
}

TEST(PasskeyRules, CountAsThePublishedScripts) {
  const auto first = [](const char* text, int64_t key) { return counts(PasskeyRule::kFirstNumber, text, key); };
  EXPECT_TRUE(first(" 12345. What", 12345));
  EXPECT_TRUE(first("is 00123\n", 123));
  EXPECT_TRUE(first("0", 0));
  EXPECT_FALSE(first(" 123456", 12345));
  EXPECT_FALSE(first(" 1 12345", 12345));
  EXPECT_FALSE(first(" none", 12345));
  EXPECT_FALSE(first("", 1));
  EXPECT_TRUE(first(" 7, 8", 7));
  const auto contains = [](const char* text, int64_t key) { return counts(PasskeyRule::kContains, text, key); };
  EXPECT_TRUE(contains(" 1 12345", 12345));
  EXPECT_TRUE(contains(" 123456", 12345));
  EXPECT_FALSE(contains(" 1234 5", 12345));
}

TEST(PasskeyProtocolNames, AreListedInErrors) {
  EXPECT_EQ(passkey_protocol_names(), "ours, landmark, yarn, longlora, pose, longrope, lm-infinite, coca");
  EXPECT_EQ(&passkey_protocol_of("ours"), &named_passkey_protocols().front().protocol);
  EXPECT_THAT([] { passkey_protocol_of("posy"); },
              testing::ThrowsMessage<Error>(HasSubstr("protocol is \"posy\"; expected one of ours, landmark")));
}

}  // namespace
}  // namespace coca::eval::passkey_protocol_test

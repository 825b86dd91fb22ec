// SPDX-License-Identifier: Apache-2.0
#include "coca/data/passkey.h"

#include <algorithm>
#include <cmath>

#include "support/temp_dir.h"

namespace coca::data::passkey_test {
namespace {

using test::error_of;
using test::put_file;
using test::TempDir;
using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr PasskeyWording kAll[] = {PasskeyWording::kLandmark, PasskeyWording::kCoca, PasskeyWording::kCompact};

const text::Tokenizer& pieces() {
  static const auto kept = [] {
    TempDir dir;
    std::string text;
    for (int i = 0; i < 30; ++i)
      text +=
          "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
          "The pass key is 12345. Remember it. What is the passkey? irrelevant info hidden\n";
    put_file(dir / "in.txt", text);
    text::train_sentencepiece({.inputs = {dir / "in.txt"}, .model_prefix = dir / "m", .vocab_size = 370});
    return text::load_sentencepiece(dir / "m.model");
  }();
  return *kept;
}

int64_t count(const text::Tokenizer& tokenizer, const PasskeyPrompt& prompt) {
  return static_cast<int64_t>(tokenizer.encode(prompt.text + prompt.answer).size());
}

TEST(Passkey, LandmarkTextIsCanonical) {
  const auto tokenizer = text::make_byte_tokenizer();
  Rng rng(1);
  const PasskeyPrompt p = make_passkey_prompt(PasskeyWording::kLandmark, 1000, 0.5, *tokenizer, rng);
  const std::string key = std::to_string(p.key);
  EXPECT_THAT(p.text,
              StartsWith("There is an important info hidden inside a lot of irrelevant text. Find it and memorize "
                         "them. I will quiz you about the important information there.\nThe grass is green. The "
                         "sky is blue. The sun is yellow. Here we go. There and back again. The grass"));
  EXPECT_THAT(p.text,
              HasSubstr("\nThe pass key is " + key + ". Remember it. " + key + " is the pass key.\nThe grass is"));
  EXPECT_THAT(p.text, EndsWith("\nWhat is the pass key? The pass key is"));
  EXPECT_EQ(p.answer, " " + key);
  EXPECT_EQ(std::count(p.text.begin(), p.text.end(), '\n'), 4);
  const PasskeyPrompt coca = make_passkey_prompt(PasskeyWording::kCoca, 1000, 0.5, *tokenizer, rng);
  EXPECT_THAT(coca.text, AllOf(HasSubstr("The passkey is " + std::to_string(coca.key) + ". Remeber it."),
                               EndsWith("What is the passkey?")));
}

TEST(Passkey, CompactIsSmall) {
  const auto tokenizer = text::make_byte_tokenizer();
  Rng rng(1);
  const std::string message = error_of(ErrorKind::kInvalidArgument,
                                       [&] { make_passkey_prompt(PasskeyWording::kCompact, 5, 0.5, *tokenizer, rng); });
  EXPECT_THAT(message, HasSubstr("takes 44"));
  for (const int64_t length : {44, 45, 46, 60, 128}) {
    const PasskeyPrompt p = make_passkey_prompt(PasskeyWording::kCompact, length, 0.5, *tokenizer, rng);
    EXPECT_LE(count(*tokenizer, p), length);
    EXPECT_THAT(p.text, EndsWith("The pass key is"));
    EXPECT_EQ(p.text.find("\n\n"), std::string::npos);
  }
}

TEST(Passkey, UsesTheLengthAndNeverExceedsIt) {
  const auto bytes = text::make_byte_tokenizer();
  for (const text::Tokenizer* tokenizer : {static_cast<const text::Tokenizer*>(bytes.get()), &pieces()})
    for (const PasskeyWording wording : kAll) {
      Rng rng(2);
      for (int64_t length = 400; length < 1400; length += 137)
        for (const double depth : {0.0, 0.1, 0.5, 1.0}) {
          const PasskeyPrompt p = make_passkey_prompt(wording, length, depth, *tokenizer, rng);
          ASSERT_LE(count(*tokenizer, p), length);
          ASSERT_GE(count(*tokenizer, p), length - 4) << tokenizer->kind() << " " << enum_name(wording);
          const double at = static_cast<double>(p.text.find(std::to_string(p.key)));
          // The introduction and the question shift the key by less than 250 bytes.
          ASSERT_NEAR(at, depth * static_cast<double>(p.text.size()), 250) << p.text;
        }
    }
}

TEST(Passkey, KeysHaveTheirDigitsAndDependOnTheGenerator) {
  const auto tokenizer = text::make_byte_tokenizer();
  for (const int64_t digits : {1, 3, 5, 18}) {
    Rng a(9), b(9);
    for (int i = 0; i < 20; ++i) {
      const PasskeyPrompt p = make_passkey_prompt(PasskeyWording::kLandmark, 600, 0.3, *tokenizer, a, digits);
      EXPECT_EQ(p.answer.size(), static_cast<size_t>(digits) + 1);
      EXPECT_EQ(p.text, make_passkey_prompt(PasskeyWording::kLandmark, 600, 0.3, *tokenizer, b, digits).text);
    }
  }
  Rng rng(1);
  for (const int64_t digits : {0, 19})
    error_of(ErrorKind::kInvalidArgument,
             [&] { make_passkey_prompt(PasskeyWording::kCoca, 600, 0.3, *tokenizer, rng, digits); });
  for (const double depth : {-0.1, 1.1, std::nan("")})
    error_of(ErrorKind::kInvalidArgument,
             [&] { make_passkey_prompt(PasskeyWording::kCoca, 600, depth, *tokenizer, rng); });
}

int64_t occurrences(const std::string& text, const std::string& part) {
  int64_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(Passkey, TrainingWindowsEndWithTheAnswer) {
  const auto bytes = text::make_byte_tokenizer();
  for (const text::Tokenizer* tokenizer : {static_cast<const text::Tokenizer*>(bytes.get()), &pieces()})
    for (const PasskeyWording wording : kAll) {
      Rng rng(4);
      double least = 1, most = 0;
      int64_t kinds[3] = {};
      for (int i = 0; i < 200; ++i) {
        const int64_t length = (wording == PasskeyWording::kCompact ? 60 : 330) + i;
        PasskeyWindowInfo info;
        const std::vector<int32_t> ids = passkey_training_window(wording, length, *tokenizer, rng, 5, &info);
        ASSERT_EQ(static_cast<int64_t>(ids.size()), length);
        ++kinds[static_cast<int>(info.kind)];
        const std::string text = tokenizer->decode(ids), key = std::to_string(info.key);
        if (info.kind == PasskeyWindow::kDigits) {  // periodic: 3 to 20 digits and a space
          bool found = false;
          for (size_t period = 4; period <= 21; ++period)
            found |= std::equal(text.begin() + static_cast<std::ptrdiff_t>(period), text.end(), text.begin());
          ASSERT_TRUE(found) << text;
          continue;
        }
        ASSERT_THAT(text, EndsWith(" " + key));
        const std::vector<int32_t> answer(ids.begin() + info.answer_start, ids.end());
        ASSERT_EQ(tokenizer->decode(answer), " " + key);
        if (info.kind == PasskeyWindow::kPrompt) {
          ASSERT_THAT(text, HasSubstr(key + "."));
          least = std::min(least, info.depth);
          most = std::max(most, info.depth);
        } else {
          ASSERT_GE(occurrences(text, key), 2) << text;
        }
      }
      EXPECT_LT(least, 0.2);
      EXPECT_GT(most, 0.8);
      EXPECT_NEAR(static_cast<double>(kinds[0]), 40, 23);  // four standard deviations of 200 draws
      EXPECT_NEAR(static_cast<double>(kinds[1]), 80, 28);
    }
}

TEST(Passkey, RepeatedKeysAreDense) {
  const auto tokenizer = text::make_byte_tokenizer();
  Rng rng(11);
  for (int i = 0; i < 100; ++i) {
    PasskeyWindowInfo info;
    const std::string text =
        tokenizer->decode(passkey_training_window(PasskeyWording::kCompact, 129, *tokenizer, rng, 5, &info));
    // A mention takes 22 bytes and a newline, and at most 20 bytes of garbage lie between mentions, so at least three
    // fit.
    if (info.kind != PasskeyWindow::kRepeated) continue;
    EXPECT_GE(occurrences(text, std::to_string(info.key)), 3) << text;
  }
}

}  // namespace
}  // namespace coca::data::passkey_test

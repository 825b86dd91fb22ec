// Oniguruma's syntax on PCRE2, and the hand-written scanners compared with the patterns that they implement.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/regex.h"

#include "coca/base/rng.h"
#include "coca/text/scanner.h"
#include "coca/text/unicode.h"
#include "support/temp_dir.h"

namespace coca::text::regex_test {
namespace {

using test::error_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Words = std::vector<std::string>;

Words matches(std::string_view pattern, std::string_view text) {
  Words words;
  Regex(pattern, "test").find_all(text, [&](size_t begin, size_t end) {
    words.emplace_back(text.substr(begin, end - begin));
  });
  return words;
}

TEST(Regex, ReadsRubySyntax) {
  EXPECT_THAT(matches("\\h+", "xA9g"), ElementsAre("A9"));
  EXPECT_THAT(matches("a{,2}b", "aaab"), ElementsAre("aab"));
  EXPECT_THAT(matches("^a", "a\na"), ElementsAre("a", "a"));
  EXPECT_THAT(matches("(?m:a.b)", "a\nb"), ElementsAre("a\nb"));
  EXPECT_THAT(matches("a.b", "a\nba\rb"), ElementsAre("a\rb"));
  EXPECT_THAT(matches("(?i:'s)", "'S'\xc5\xbf"), ElementsAre("'S", "'\xc5\xbf"));
  EXPECT_THAT(matches("\\u0041\\x42", "AB"), ElementsAre("AB"));
  EXPECT_THAT(matches("\\bab\\b", "ab cab"), ElementsAre("ab"));
  EXPECT_THAT(matches("[[:space:]]+", "a \xe3\x80\x80 b"), ElementsAre(" \xe3\x80\x80 "));
  EXPECT_THAT(matches("x*", "axxb"), ElementsAre("", "xx", ""));
  EXPECT_THAT(matches("\\p{Han}+",
                      "a\xe6\xbc\xa2\xe5\xad\x97"
                      "b"),
              ElementsAre("\xe6\xbc\xa2\xe5\xad\x97"));
  EXPECT_THAT(matches("{a", "{a"), ElementsAre("{a"));
}

TEST(Regex, KnowsCharactersOfUnicode16) {
  std::string letter, digit;
  append_utf8(0x10d50, letter);
  append_utf8(0x10d40, digit);
  EXPECT_THAT(matches("\\p{L}+", letter), ElementsAre(letter));
  EXPECT_THAT(matches("\\p{Lu}", letter), ElementsAre(letter));
  EXPECT_THAT(matches("[^\\p{L}]", letter), ElementsAre());
  EXPECT_THAT(matches("\\d\\w", digit + letter), ElementsAre(digit + letter));
  EXPECT_EQ(CharTable::get()[0x10d50], CharClass::kLetter);
  EXPECT_EQ(CharTable::get()[0x10d40], CharClass::kNumber);
  EXPECT_THAT(matches("\\s", "\xe1\xa0\x8e\xc2\x85"), ElementsAre("\xc2\x85")) << "U+180E is no blank";
}

// Expected results from the tokenizers package 0.23.3, which uses Oniguruma.
TEST(Regex, ClassesWithinClassesAndIntersections) {
  const std::string text =
      "abcdef\xe4\xb8\xad"
      "xyz-A&B";
  EXPECT_THAT(matches("[a-z&&[^b]]+", text), ElementsAre("a", "cdef", "xyz"));
  EXPECT_THAT(matches("[a-z&&[^b]&&[^c]]+", text), ElementsAre("a", "def", "xyz"));
  EXPECT_THAT(matches("[\\p{L}&&[^\\p{Han}]]+", text), ElementsAre("abcdef", "xyz", "A", "B"));
  EXPECT_THAT(matches("[a-d&&b-f]+", text), ElementsAre("bcd"));
  EXPECT_THAT(matches("[^a-d&&b-f]+", text), ElementsAre("a",
                                                         "ef\xe4\xb8\xad"
                                                         "xyz-A&B"));
  EXPECT_THAT(matches("[^a&&b]+", text), ElementsAre(text));
  EXPECT_THAT(matches("[ab[cd]]+", text), ElementsAre("abcd"));
  EXPECT_THAT(matches("[^ab[^cd]]+", text), ElementsAre("cd"));
  EXPECT_THAT(matches("[x[^a-y]]+", text), ElementsAre("\xe4\xb8\xad"
                                                       "x",
                                                       "z-A&B"));
  EXPECT_THAT(matches("[a&b]+", text), ElementsAre("ab", "&"));
}

TEST(Regex, RefusesByName) {
  for (const char* pattern :
       {"\\R",   "\\X",      "\\K",     "\\1", "[a&&]", "[&&a]", "a(?i)b", "(?x:a)", "(?~a)",    "(*ANY)", "a{1,2}+",
        "\\xe4", "\\p{Foo}", "\\p{L&}", "(a",  "[a",    "a)",    "\\",     "[]a]",   "(?<=a*)b", "[\\W]"})
    EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { Regex(pattern, "where.from"); }), HasSubstr("where.from"))
        << pattern;
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { Regex(std::string(1000, '['), "x"); }),
              HasSubstr("classes within classes"));
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { Regex(std::string(20'000, 'a'), "x"); }), HasSubstr("20,000"));
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { Regex("((((a{99}){99}){99}){99}){99}", "x"); }), HasSubstr("a{99}"));
}

TEST(Regex, MatchingHasLimits) {
  const Regex slow("(a+)+$", "slow.pattern");
  const std::string text = std::string(40, 'a') + "b";
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { slow.find_all(text, [](size_t, size_t) {}); }),
              HasSubstr("slow.pattern"));
}

class ScannerTest : public testing::TestWithParam<std::string_view> {};

TEST_P(ScannerTest, SplitsLikeThePattern) {
  const Scanner scanner = *scanner_for(GetParam());
  const Regex regex(GetParam(), "pattern");
  const std::string_view pieces[] = {" ",
                                     "  ",
                                     "\n",
                                     "\r\n",
                                     "\t",
                                     "\xc2\xa0",
                                     "\xe3\x80\x80",
                                     "'",
                                     "'s",
                                     "'RE",
                                     "'ll",
                                     "'\xc5\xbf",
                                     "a",
                                     "Z",
                                     "\xc3\xa9",
                                     "\xe4\xb8\xad",
                                     "\xcc\x81",
                                     "1",
                                     "23",
                                     "\xd9\xa3",
                                     "\xc2\xb2",
                                     ".",
                                     "!?",
                                     "\xf0\x9f\x98\x80",
                                     "\xe2\x80\x8d",
                                     "_",
                                     "\x01",
                                     "\xc2\x85",
                                     "\xe2\x80\xa8",
                                     "\xef\xbf\xbd",
                                     "\xf0\x90\xb5\x90",
                                     "<",
                                     "/"};
  Rng rng(9);
  for (int i = 0; i < 5000; ++i) {
    std::string text;
    for (size_t n = 1 + rng.below(12); n > 0; --n) text += pieces[rng.below(std::size(pieces))];
    Words words;
    for (size_t at = 0; at < text.size();) {
      const size_t end = scanner(text, at);
      ASSERT_GT(end, at);
      words.push_back(text.substr(at, end - at));
      at = end;
    }
    ASSERT_EQ(words, matches(GetParam(), text)) << text;
  }
  for (uint32_t page = 0; page < 0x1100; ++page) {  // every character, after a space and before a letter
    if (page >= 0xd8 && page < 0xe0) continue;
    std::string text;
    for (uint32_t c = page << 8; c < (page + 1) << 8; ++c) {
      text += ' ';
      append_utf8(c, text);
      text += "a ";
    }
    size_t at = 0;
    bool same = true;
    regex.find_all(text, [&](size_t begin, size_t end) {
      same &= begin == at;
      at = scanner(text, at);
      same &= at == end;
    });
    EXPECT_TRUE(same) << page;
  }
}
INSTANTIATE_TEST_SUITE_P(Known, ScannerTest, testing::Values(kGpt2Pattern, kLlama3Pattern, kQwen2Pattern));

TEST(Unicode, NormalForms) {
  EXPECT_EQ(normalize("e\xcc\x81", NormalForm::kNfc), "\xc3\xa9");
  EXPECT_EQ(normalize("\xc3\xa9", NormalForm::kNfd), "e\xcc\x81");
  EXPECT_EQ(normalize("\xef\xac\x81", NormalForm::kNfkc), "fi");
  EXPECT_EQ(normalize("\xef\xac\x81", NormalForm::kNfd), "\xef\xac\x81");
  EXPECT_EQ(normalize("\xe3\x8b\xbf", NormalForm::kNfkd), "\xe3\x8b\xbf")
      << "U+32FF is younger than the package's tables";
  EXPECT_EQ(to_lower("\xc4\xb0\xce\xa3 \xce\x91\xce\xa3"), "i\xcc\x87\xcf\x83 \xce\xb1\xcf\x83") << "no final sigma";
}

}  // namespace
}  // namespace coca::text::regex_test

// SPDX-License-Identifier: Apache-2.0
#include "coca/text/utf8.h"

#include <gtest/gtest.h>

namespace coca::text::utf8_test {
namespace {

const std::string kMark = "\xef\xbf\xbd";  // U+FFFD

TEST(Utf8, ValidSequences) {
  for (const char* text :
       {"", "abc", "\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbf",
        "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"}) {
    EXPECT_TRUE(is_valid_utf8(text)) << text;
    EXPECT_EQ(count_invalid(text), 0u);
    EXPECT_EQ(replace_invalid(text), text);
  }
  EXPECT_TRUE(is_valid_utf8(std::string_view("a\0b", 3)));
}

// Maximal subparts, as in tables 3-8 and 3-11 of the Unicode standard.
TEST(Utf8, BrokenSequences) {
  const struct {
    const char* text;
    size_t marks;
    std::string replaced;
  } cases[] = {
      {"\x80", 1, kMark},
      {"\xff"
       "a",
       1, kMark + "a"},
      {"\xc0\xaf", 2, kMark + kMark},                          // overlong
      {"\xe0\x80\xbf", 3, kMark + kMark + kMark},              // overlong
      {"\xed\xa0\x80", 3, kMark + kMark + kMark},              // surrogate
      {"\xf4\x90\x80\x80", 4, kMark + kMark + kMark + kMark},  // above U+10FFFF
      {"\xf5\x80", 2, kMark + kMark},
      {"\xe2\x82", 1, kMark},  // cut at the end
      {"\xe2\x82"
       "a",
       1, kMark + "a"},  // cut within
      {"\xf0\x9f\x98", 1, kMark},
      {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf"
       "A",
       4, kMark + kMark + kMark + kMark + "A"},
      {"x\xc3y\xc3\xa9", 1, "x" + kMark + "y\xc3\xa9"},
  };
  for (const auto& c : cases) {
    EXPECT_FALSE(is_valid_utf8(c.text));
    EXPECT_EQ(count_invalid(c.text), c.marks) << c.replaced;
    EXPECT_EQ(replace_invalid(c.text), c.replaced);
    EXPECT_TRUE(is_valid_utf8(replace_invalid(c.text)));
  }
  EXPECT_EQ(find_invalid("ab\xff"), 2u);
}

TEST(Utf8, EveryTwoByteTextAgreesWithItself) {
  for (int a = 0; a < 256; ++a)
    for (int b = 0; b < 256; ++b) {
      const std::string text = {static_cast<char>(a), static_cast<char>(b)};
      const bool valid = (a < 0x80 && b < 0x80) || (a >= 0xc2 && a <= 0xdf && b >= 0x80 && b <= 0xbf);
      ASSERT_EQ(is_valid_utf8(text), valid) << a << " " << b;
      ASSERT_EQ(count_invalid(text) == 0, valid);
    }
}

TEST(Utf8, Bom) {
  std::string text = "\xef\xbb\xbfhi";
  EXPECT_TRUE(strip_bom(text));
  EXPECT_EQ(text, "hi");
  EXPECT_FALSE(strip_bom(text));
}

}  // namespace
}  // namespace coca::text::utf8_test

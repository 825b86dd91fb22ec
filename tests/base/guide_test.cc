// Code blocks in the guide that a comment says to be a file are that file, so that what readers copy compiles.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <sstream>
#include <string>

namespace coca::guide_test {
namespace {

std::string text_of(const std::string& path) {
  std::ifstream file(std::string(COCA_SOURCE_DIR) + "/" + path);
  EXPECT_TRUE(file) << path;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(Guide, QuotesFilesAsTheyAre) {
  const std::string guide = text_of("docs/guide.md");
  const std::regex start("<!-- (\\S+) -->\n```cpp\n");
  int found = 0;
  for (std::sregex_iterator it(guide.begin(), guide.end(), start), end; it != end; ++it, ++found) {
    const size_t from = static_cast<size_t>(it->position() + it->length()), to = guide.find("```\n", from);
    EXPECT_EQ(guide.substr(from, to - from), text_of((*it)[1])) << (*it)[1];
  }
  EXPECT_EQ(found, 2);
}

}  // namespace
}  // namespace coca::guide_test

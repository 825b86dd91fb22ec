// Tables in four formats, and the formatting of numbers.
// SPDX-License-Identifier: Apache-2.0
#include "coca/report/table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/report/escape.h"

namespace coca::report::table_test {
namespace {

using ::testing::HasSubstr;

Table sample() {
  return {.title = "Perplexity",
          .header = {"model", "512", "1024"},
          .rows = {{"rope", "4.800", "35.00"}, {"CoCA é", "4.7", "4.900"}}};
}

TEST(Table, TextIsAligned) {
  EXPECT_EQ(to_text(sample()),
            "Perplexity\n"
            "model     512   1024\n"
            "------  -----  -----\n"
            "rope    4.800  35.00\n"
            "CoCA é    4.7  4.900\n");
}

TEST(Table, TextIsNoWiderThanAsked) {
  Table t{.title = "",
          .header = {"kind", "scored tokens", "patterns"},
          .rows = {{"coca-slack", "1,234", "full, sliding-window, longformer"}, {"none", "5", "-"}},
          .align = {Align::kLeft, Align::kRight, Align::kLeft}};
  EXPECT_EQ(to_text_within(t, 35),
            "kind        scored  patterns\n"
            "            tokens\n"
            "----------  ------  ---------------\n"
            "coca-slack   1,234  full,\n"
            "                    sliding-window,\n"
            "                    longformer\n"
            "none             5  -\n");
  EXPECT_EQ(to_text_within(t, 1000), to_text(t));
  EXPECT_EQ(to_text_within(t, 0), to_text(t));
  EXPECT_THAT(to_text_within(t, 1), HasSubstr("sliding-window")) << "words stay whole";
  t.align = {Align::kLeft, Align::kLeft, Align::kLeft};
  EXPECT_EQ(to_text_within(t, 30),
            "kind: coca-slack\n"
            "scored tokens: 1,234\n"
            "patterns: full,\n"
            "  sliding-window, longformer\n"
            "\n"
            "kind: none\n"
            "scored tokens: 5\n"
            "patterns: -\n");
  for (const int columns : {1, 20, 34})
    EXPECT_THAT(to_text_within(t, columns), HasSubstr("sliding-window,")) << columns;
}

TEST(Table, ColumnsThatDoNotFitStandBelow) {
  const Table t{.title = "Speed",
                .header = {"model", "length", "time", "peak memory", "share"},
                .rows = {{"a-b", "512", "45.2 s", "1.5 KiB", "2 %"}, {"a-b", "1024", "12 min 05 s", "3.2 GiB", "98 %"}},
                .align = {}};
  EXPECT_EQ(to_text_within(t, 35),
            "Speed\n"
            "model  length         time     peak\n"
            "                             memory\n"
            "-----  ------  -----------  -------\n"
            "a-b       512       45.2 s  1.5 KiB\n"
            "a-b      1024  12 min 05 s  3.2 GiB\n"
            "\n"
            "model  length  share\n"
            "-----  ------  -----\n"
            "a-b       512    2 %\n"
            "a-b      1024   98 %\n")
      << "both columns that tell the rows apart are repeated; numbers keep their units";
  for (int columns = 1; columns < 60; ++columns) {
    const std::string text = to_text_within(t, columns);
    for (const auto& row : t.rows)
      for (const std::string& cell : row) EXPECT_THAT(text, HasSubstr(cell)) << columns;
    std::istringstream lines(text);
    for (std::string line; columns >= 26 && std::getline(lines, line);)
      EXPECT_LE(line.size(), static_cast<size_t>(columns)) << text;
  }
}

TEST(Table, TextWithoutTitleAndWithExplicitAlignment) {
  Table t = sample();
  t.title.clear();
  t.align = {Align::kRight, Align::kLeft};
  EXPECT_EQ(to_text(t),
            " model  512     1024\n"
            "------  -----  -----\n"
            "  rope  4.800  35.00\n"
            "CoCA é  4.7    4.900\n");
}

TEST(Table, TextKeepsHostileCellsOnOneLine) {
  const Table t = {.header = {"a"}, .rows = {{"x\ny\x1b[31m"}}};
  EXPECT_EQ(to_text(t), "a\n--------\nx y [31m\n");
}

TEST(Table, Markdown) {
  EXPECT_EQ(to_markdown(sample()),
            "**Perplexity**\n\n"
            "| model | 512 | 1024 |\n"
            "|:---|---:|---:|\n"
            "| rope | 4.800 | 35.00 |\n"
            "| CoCA é | 4.7 | 4.900 |\n");
}

TEST(Table, MarkdownEscapes) {
  const Table t = {.header = {"a|b"}, .rows = {{"<b>*x*_y_`z`\n&amp;[l](u)\\"}}};
  EXPECT_EQ(to_markdown(t), "| a\\|b |\n|:---|\n| \\<b\\>\\*x\\*\\_y\\_\\`z\\` &amp;amp;\\[l\\](u)\\\\ |\n");
}

TEST(Table, HtmlEscapes) {
  const Table t = {.title = "a<b", .header = {"x", "\"y\""}, .rows = {{"<script>alert('1')</script>", "&"}}};
  const std::string html = to_html(t);
  EXPECT_THAT(html, HasSubstr("<caption>a&lt;b</caption>"));
  EXPECT_THAT(html, HasSubstr("<th class=\"right\">&quot;y&quot;</th>"));
  EXPECT_THAT(html, HasSubstr("<td>&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;</td>"));
  EXPECT_THAT(html, HasSubstr("<td class=\"right\">&amp;</td>"));
}

TEST(Table, CsvQuotes) {
  const Table t = {.title = "not in it", .header = {"a", "b"}, .rows = {{"x,y", "say \"hi\""}, {"", "two\nlines"}}};
  EXPECT_EQ(to_csv(t), "a,b\n\"x,y\",\"say \"\"hi\"\"\"\n,\"two\nlines\"\n");
}

TEST(Table, RaggedRowsAreRefused) {
  const Table t = {.title = "T", .header = {"a", "b"}, .rows = {{"1", "2"}, {"1"}}};
  for (auto render : {to_text, to_markdown, static_cast<std::string (*)(const Table&)>(to_html), to_csv}) {
    try {
      render(t);
      ADD_FAILURE() << "accepted";
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), HasSubstr("row 1 has 1 cells, the header 2"));
    }
  }
}

TEST(Format, Number) {
  EXPECT_EQ(format_number(4.6274), "4.627");
  EXPECT_EQ(format_number(122.34), "122.3");
  EXPECT_EQ(format_number(4.5), "4.500");
  EXPECT_EQ(format_number(1234.4), "1,234");
  EXPECT_EQ(format_number(-1234.5, 5), "-1,234.5");
  EXPECT_EQ(format_number(999.96), "1,000");
  EXPECT_EQ(format_number(123456, 2), "120,000");
  EXPECT_EQ(format_number(100000, 1), "100,000");
  EXPECT_EQ(format_number(1e15), "1.000e+15");
  EXPECT_EQ(format_number(0.0), "0.000");
  EXPECT_EQ(format_number(-2.5, 2), "-2.5");
  EXPECT_EQ(format_number(std::nullopt), "-");
  EXPECT_EQ(format_number(std::nan("")), "nan");
  EXPECT_EQ(format_number(std::numeric_limits<double>::infinity()), "inf");
  EXPECT_EQ(format_number(-std::numeric_limits<double>::infinity()), "-inf");
}

TEST(Format, Count) {
  EXPECT_EQ(grouped(0), "0");
  EXPECT_EQ(grouped(999), "999");
  EXPECT_EQ(grouped(1000), "1,000");
  EXPECT_EQ(grouped(851968), "851,968");
  EXPECT_EQ(grouped(-1234567), "-1,234,567");
  EXPECT_EQ(grouped(-999), "-999");
  EXPECT_EQ(grouped(std::numeric_limits<int64_t>::min()), "-9,223,372,036,854,775,808");
}

TEST(Format, Counted) {
  EXPECT_EQ(counted(1, "document"), "1 document");
  EXPECT_EQ(counted(0, "document"), "0 documents");
  EXPECT_EQ(counted(-1, "step"), "-1 steps");
  EXPECT_EQ(counted(1203, "matrix", "matrices"), "1,203 matrices");
  EXPECT_EQ(counted(1, "matrix", "matrices"), "1 matrix");
}

TEST(Format, Duration) {
  EXPECT_EQ(format_duration(0), "0 s");
  EXPECT_EQ(format_duration(85e-6), "85 us");
  EXPECT_EQ(format_duration(0.0042), "4.2 ms");
  EXPECT_EQ(format_duration(0.85), "850 ms");
  EXPECT_EQ(format_duration(0.9999), "1.0 s");
  EXPECT_EQ(format_duration(45.2), "45.2 s");
  EXPECT_EQ(format_duration(59.97), "1 min 00 s");
  EXPECT_EQ(format_duration(725), "12 min 05 s");
  EXPECT_EQ(format_duration(3599.7), "1 h 00 min");
  EXPECT_EQ(format_duration(3720), "1 h 02 min");
  EXPECT_EQ(format_duration(86390), "1 d 00 h");
  EXPECT_EQ(format_duration(3 * 86400 + 7200), "3 d 02 h");
  EXPECT_EQ(format_duration(-1), "-");
  EXPECT_EQ(format_duration(std::nan("")), "-");
}

TEST(Format, Bytes) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes(1048575), "1.0 MiB");
  EXPECT_EQ(format_bytes(int64_t{3435973837}), "3.2 GiB");
}

TEST(Escape, InvalidUtf8BecomesTheReplacementCharacter) {
  EXPECT_EQ(single_line("a\xff"
                        "b"),
            "a\xef\xbf\xbd"
            "b");
  EXPECT_EQ(single_line("\xc0\xaf"), "\xef\xbf\xbd\xef\xbf\xbd");       // overlong
  EXPECT_EQ(single_line("\xed\xa0\x80").substr(0, 3), "\xef\xbf\xbd");  // surrogate
  EXPECT_EQ(single_line("\xe2\x82"), "\xef\xbf\xbd\xef\xbf\xbd");       // cut short
  EXPECT_EQ(single_line("\xf0\x9f\x98\x80 \xe2\x82\xac \xc3\xa9"), "\xf0\x9f\x98\x80 \xe2\x82\xac \xc3\xa9");
}

TEST(Escape, GnuplotQuotes) {
  EXPECT_EQ(quote_gnuplot("it's\n`x` 3%"), R"("it\047s \140x\140 3%")");
  EXPECT_EQ(quote_gnuplot_tick("50%"), R"("50%%")");
}

}  // namespace
}  // namespace coca::report::table_test

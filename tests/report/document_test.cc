// One document in two formats: self-contained HTML and Markdown.
// SPDX-License-Identifier: Apache-2.0
#include "coca/report/document.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "coca/base/error.h"
#include "coca/report/chart.h"
#include "coca/report/html.h"
#include "coca/report/markdown.h"
#include "coca/report/svg.h"
#include "coca/report/write.h"
#include "report/svg_support.h"
#include "support/paths.h"

namespace coca::report::document_test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// A small example of gnuplot's SVG.
const char* const kSvg =
    "<?xml version=\"1.0\" encoding=\"utf-8\"  standalone=\"no\"?>\n<svg \n width=\"9\" height=\"9\"\n"
    " xmlns=\"http://www.w3.org/2000/svg\"\n "
    "xmlns:xlink=\"http://www.w3.org/1999/xlink\"\n>\n<title>t</title>\n"
    "<g id=\"gnuplot_canvas\"><defs><circle id='gpDot' r='0.5'/></defs><use xlink:href='#gpDot'/>"
    "<path fill='url(#gpDot)'/><text>a > b id=\"kept\"</text></g>\n</svg>\n";

Document sample() {
  Document d("CoCA & friends");
  d.heading(2, "Results");
  d.paragraph("Trained at **512** tokens with `coca study`; 3 * 4 < 13.");
  d.table({.title = "Perplexity", .header = {"model", "512"}, .rows = {{"rope", "4.8"}}});
  d.figure({.name = "one", .svg = kSvg, .caption = "Lower is better."});
  d.figure({.name = "two", .svg = kSvg, .caption = "Higher is **better**."});
  d.list({"first", "`second`"});
  d.preformatted("a <b>\n```\n");
  return d;
}

void expect_self_contained(const std::string& html) {
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("http:")));
  EXPECT_THAT(html, Not(HasSubstr("https:")));
  EXPECT_THAT(html, Not(HasSubstr("<link")));
  EXPECT_THAT(html, Not(HasSubstr(" src=")));
  EXPECT_THAT(html, Not(HasSubstr("@import")));
  EXPECT_THAT(html, Not(HasSubstr("<?xml")));
}

// Checks that all ids of a page are unique and that every reference has a target.
void expect_sound_ids(const std::string& html) {
  std::set<std::string> ids;
  for (const std::string quote : {"'", "\""})
    for (const std::string& id : all_between(html, " id=" + quote, quote)) {
      if (id == "kept") continue;  // part of a text, see kSvg
      EXPECT_TRUE(ids.insert(id).second) << id << " is there twice";
    }
  EXPECT_GE(ids.size(), 4u);
  for (const std::string open : {"href='#", "href=\"#", "url(#"})
    for (const std::string& to : all_between(html, open, open[0] == 'u' ? ")" : open.substr(5, 1)))
      EXPECT_TRUE(ids.contains(to)) << "reference to " << to << " leads nowhere";
}

TEST(Spans, MarksAndStrays) {
  const auto text = [](std::string_view marked) {
    std::string out;
    for (const Span& s : parse_spans(marked)) out += "pcb"[static_cast<int>(s.kind)] + s.text + "|";
    return out;
  };
  EXPECT_EQ(text("a `b` **c** d"), "pa |cb|p |bc|p d|");
  EXPECT_EQ(text("2 * 3 ** 4"), "p2 * 3 ** 4|");
  EXPECT_EQ(text("odd ` mark"), "podd ` mark|");
  EXPECT_EQ(text("``"), "p``|");
  EXPECT_EQ(text("****"), "p****|");
  EXPECT_EQ(text("`**x**`"), "c**x**|");
  EXPECT_EQ(text(""), "");
}

TEST(Html, HasEveryBlockEscaped) {
  const std::string html = to_html(sample());
  for (const char* text :
       {"<!DOCTYPE html>", "<title>CoCA &amp; friends</title>", "<h1>CoCA &amp; friends</h1>", "<h2>Results</h2>",
        "<strong>512</strong>", "<code>coca study</code>; 3 * 4 &lt; 13.", "<td>rope</td>", "Lower is better.",
        "<li><code>second</code></li>", "<pre>a &lt;b&gt;\n```\n</pre>", "prefers-color-scheme: dark"})
    EXPECT_THAT(html, HasSubstr(text));
}

// Checks the CSS rules whose effect was measured in a browser at 1,200 px.
TEST(Html, WideTablesBreakHeadersAndScroll) {
  const std::string html = to_html(sample());
  EXPECT_THAT(html, HasSubstr("<div class=\"table\"><table>"));
  EXPECT_THAT(html, HasSubstr(".table { overflow-x: auto;"));
  EXPECT_THAT(html, HasSubstr("td + td { white-space: nowrap; }"));
  EXPECT_THAT(html, Not(testing::ContainsRegex("th[^\n]*nowrap")));
}

TEST(Html, IsSelfContained) { expect_self_contained(to_html(sample())); }

TEST(Html, IdsOfFiguresAreUnique) {
  const std::string html = to_html(sample());
  expect_sound_ids(html);
  EXPECT_THAT(html, HasSubstr("<text>a > b id=\"kept\"</text>"));  // text is left unchanged
}

TEST(Html, WithRealCharts) {
  if (!gnuplot_available()) GTEST_SKIP() << "gnuplot is not installed";
  const Chart chart = {.title = "T", .series = {{.label = "s", .x = {1, 2}, .y = {1, 2}}}};
  Document d("Two charts");
  d.figure({.name = "a", .svg = render_svg(chart), .caption = "a"});
  d.figure({.name = "b", .svg = render_svg(chart), .caption = "b"});
  const std::string html = to_html(d);
  expect_self_contained(html);
  expect_sound_ids(html);
}

TEST(Html, RefusesFiguresThatRunOrLoad) {
  for (const char* inner :
       {"<script>x</script>", "<SCRIPT>x</SCRIPT>", "<g onload=\"x\"/>", "<a href=\"javascript:x\"/>",
        "<image href=\"http://x/y.png\"/>", "<use xlink:href='other.svg#a'/>", "<foreignObject/>"})
    EXPECT_THROW(inline_svg(std::string("<svg>") + inner + "</svg>", "f1-"), Error) << inner;
  EXPECT_THROW(inline_svg("", "f1-"), Error);
  EXPECT_THROW(inline_svg("not an image", "f1-"), Error);
  EXPECT_NO_THROW(inline_svg("<svg><text>onload=1 javascript:</text></svg>", "f1-"));
}

TEST(Document, RefusesBadNames) {
  Document d("x");
  for (const char* name : {"", "../up", "a b", "A"}) EXPECT_THROW(d.figure({.name = name, .svg = kSvg}), Error) << name;
  d.figure({.name = "a", .svg = kSvg});
  EXPECT_THROW(d.figure({.name = "a", .svg = kSvg}), Error);
  EXPECT_THROW(d.heading(1, "x"), Error);
}

TEST(Markdown, TwinOfTheHtml) {
  EXPECT_EQ(to_markdown(sample()),
            "# CoCA &amp; friends\n\n"
            "## Results\n\n"
            "Trained at **512** tokens with `coca study`; 3 \\* 4 \\< 13.\n\n"
            "**Perplexity**\n\n| model | 512 |\n|:---|---:|\n| rope | 4.8 |\n\n"
            "![one](figures/one.svg)\n\nLower is better.\n\n"
            "![two](figures/two.svg)\n\nHigher is **better**.\n\n"
            "- first\n- `second`\n\n"
            "````\na <b>\n```\n````\n");
}

TEST(Markdown, ParagraphsDoNotTurnIntoLists) {
  Document d("x");
  d.paragraph("1. not a list");
  d.paragraph("- nor this");
  EXPECT_EQ(to_markdown(d), "# x\n\n1\\. not a list\n\n\\- nor this\n");
}

TEST(Write, FilesAndFigures) {
  const test::TempDir temporary;
  const std::filesystem::path folder = temporary.path() / "deep" / "er";
  const ReportFiles files = write_document(sample(), folder);
  const auto read = [](const std::filesystem::path& file) {
    std::ostringstream text;
    text << std::ifstream(file).rdbuf();
    return text.str();
  };
  EXPECT_EQ(read(files.html), to_html(sample()));
  EXPECT_EQ(read(files.markdown), to_markdown(sample()));
  EXPECT_EQ(read(folder / "figures" / "one.svg"), kSvg);
  EXPECT_EQ(read(folder / "figures" / "two.svg"), kSvg);
}

}  // namespace
}  // namespace coca::report::document_test

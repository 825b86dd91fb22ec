// Charts: the script for gnuplot and the SVG it returns. Tests that draw are skipped without gnuplot.
// SPDX-License-Identifier: Apache-2.0
#include "coca/report/chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>

#include "coca/base/error.h"
#include "report/svg_support.h"
#include "support/paths.h"

#define SKIP_WITHOUT_GNUPLOT() \
  if (!gnuplot_available()) GTEST_SKIP() << "gnuplot is not installed"

namespace coca::report::chart_test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

Chart sample() {
  return {.title = "Perplexity",
          .x_label = "tokens",
          .y_label = "ppl",
          .x_scale = Scale::kLog2,
          .y_scale = Scale::kLog,
          .series = {{.label = "rope", .x = {128, 256, 512, 1024}, .y = {5, 4.8, 40, 900}},
                     {.label = "CoCA",
                      .x = {128, 256, 512, 1024},
                      .y = {5, 4.7, 4.6, 4.9},
                      .y_low = {4.9, 4.6, 4.5, 4.7},
                      .y_high = {5.1, 4.8, 4.7, 5.1}}},
          .vertical_line = Marker{256, "trained length"}};
}

// Restores PATH when the test ends.
class PathGuard {
 public:
  explicit PathGuard(const std::string& path) : old_(std::getenv("PATH")) { setenv("PATH", path.c_str(), 1); }
  ~PathGuard() { setenv("PATH", old_.c_str(), 1); }

 private:
  std::string old_;
};

TEST(ChartScript, DropsWhatCannotBeDrawnAndLeavesAGap) {
  Chart c = {.y_scale = Scale::kLog,
             .series = {{.label = "a", .x = {1, 2, 3, 4, 5, 6, 7}, .y = {kNan, 3, 0, -1, 4, kInf, 5}}}};
  EXPECT_THAT(gnuplot_script(c), HasSubstr("$s0 << END_OF_SERIES\n2 3 3 3\n\n5 4 4 4\n\n7 5 5 5\nEND_OF_SERIES\n"));
  c.y_scale = Scale::kLinear;
  EXPECT_THAT(gnuplot_script(c), HasSubstr("2 3 3 3\n3 0 0 0\n4 -1 -1 -1\n5 4 4 4\n\n7 5 5 5\n"));
}

TEST(ChartScript, TicksOfLog2AxisAreTheLengths) {
  EXPECT_THAT(gnuplot_script(sample()), HasSubstr("set xtics ('128' 128, '256' 256, '512' 512, '1024' 1024)"));
}

// The labels in `set xtics ('a' 1, 'b' 2)`.
std::vector<std::string> tick_labels(const std::string& script, const std::string& axis) {
  const std::vector<std::string> lists = all_between(script, "set " + axis + "tics (", ")\n");
  return lists.size() == 1 ? all_between(", " + lists[0], ", '", "' ") : std::vector<std::string>();
}

TEST(ChartScript, CloseValuesHaveTwoDifferentTicksAtLeast) {
  for (const Scale scale : {Scale::kLog, Scale::kLog2, Scale::kLinear})
    for (const double low : {14.16, 6.05, 9.1, 1.01, 0.99, 123456.7, 3e-5, 2.5e9})
      for (const double ratio : {1 + 1e-9, 1.00001, 1.0106, 1.09, 1.3, 1.36, 2.1, 7.0}) {
        const Chart c = {.y_scale = scale, .series = {{.label = "a", .x = {1, 2}, .y = {low, low * ratio}}}};
        const std::vector<std::string> labels = tick_labels(gnuplot_script(c), "y");
        if (scale == Scale::kLinear && ratio > 1.0001) continue;  // left to gnuplot
        ASSERT_GE(labels.size(), 2u) << low << " * " << ratio;
        EXPECT_EQ(std::set<std::string>(labels.begin(), labels.end()).size(), labels.size()) << low << " * " << ratio;
      }
}

TEST(ChartScript, OneLengthHasNeighbouringTicks) {
  Chart c = {.x_scale = Scale::kLog2, .series = {{.label = "a", .x = {300}, .y = {5}}}};
  EXPECT_THAT(tick_labels(gnuplot_script(c), "x"), testing::ElementsAre("150", "300", "600"));
  c.vertical_line = Marker{256, "trained length"};
  EXPECT_THAT(tick_labels(gnuplot_script(c), "x"), testing::ElementsAre("256", "300"));
}

TEST(ChartScript, ALegendBelowStandsApartFromTheAxis) {
  Chart c = sample();
  EXPECT_THAT(gnuplot_script(c), HasSubstr("set xlabel \"tokens\" "));
  c.legend = Legend::kBelow;
  EXPECT_THAT(gnuplot_script(c), HasSubstr("set xlabel \"tokens\".\"\\n\" "));
}

TEST(ChartScript, SameColorIndexSameColor) {
  Chart c = sample();
  c.series[1].color_index = 0;
  const std::string script = gnuplot_script(c);
  EXPECT_THAT(script, HasSubstr("'#0072B2'"));
  EXPECT_THAT(script, Not(HasSubstr("'#D55E00'")));
}

TEST(ChartScript, RefusesLengthsThatDisagree) {
  EXPECT_THROW(gnuplot_script(Chart{.series = {{.label = "a", .x = {1, 2}, .y = {1}}}}), Error);
  EXPECT_THROW(gnuplot_script(Chart{.series = {{.label = "a", .x = {1}, .y = {1}, .y_low = {1}}}}), Error);
  EXPECT_THROW(gnuplot_script(HeatMap{.x_ticks = {"a"}, .y_ticks = {"b"}, .values = {{0.1, 0.2}}}), Error);
  EXPECT_THROW(gnuplot_script(HeatMap{.x_ticks = {"a"}, .y_ticks = {"b"}, .values = {{1.5}}}), Error);
}

TEST(Chart, SvgIsWellFormedAndHasEveryLabel) {
  SKIP_WITHOUT_GNUPLOT();
  const std::string svg = render_svg(sample());
  EXPECT_EQ(xml_problem(svg), "");
  for (const char* text :
       {">Perplexity<", ">tokens<", ">ppl<", ">rope<", ">CoCA<", ">trained length<", "512<", "1024<"})
    EXPECT_THAT(svg, HasSubstr(text));
  EXPECT_THAT(svg, HasSubstr("<title>Perplexity</title>"));
  EXPECT_THAT(svg, HasSubstr("rgb(  0, 114, 178)"));
}

TEST(Chart, BandAndErrorBarsAreDrawn) {
  SKIP_WITHOUT_GNUPLOT();
  Chart c = sample();
  EXPECT_THAT(render_svg(c), HasSubstr("fill-opacity"));
  c.series[1].spread = Spread::kErrorBars;
  const std::string bars = render_svg(c);
  EXPECT_THAT(bars, Not(HasSubstr("fill-opacity = '0.18")));
  EXPECT_EQ(xml_problem(bars), "");
}

TEST(Chart, HostileLabelsAreOnlyText) {
  SKIP_WITHOUT_GNUPLOT();
  const test::TempDir folder;
  const std::filesystem::path trap = folder.path() / "trap";
  const std::string touch = "touch " + trap.string();
  for (const std::string& label :
       std::vector<std::string>{"\"; system \"" + touch, "'; system '" + touch + "'; '", "`" + touch + "`",
                                "$(" + touch + ")", "\n!" + touch + "\n", "@x\\", "END_OF_SERIES\n!" + touch,
                                "</text><script>x</script>", "a%d {/Symbol b}_c^d"}) {
    Chart c = sample();
    c.title = c.x_label = c.y_label = c.series[0].label = c.vertical_line->label = label;
    const std::string svg = render_svg(c);
    EXPECT_EQ(xml_problem(svg), "") << label;
    EXPECT_THAT(svg, Not(HasSubstr("<script"))) << label;
    EXPECT_FALSE(std::filesystem::exists(trap)) << label;
    const HeatMap map = {.title = label, .x_label = label, .x_ticks = {label}, .y_ticks = {label}, .values = {{0.5}}};
    EXPECT_EQ(xml_problem(render_svg(map)), "") << label;
    EXPECT_FALSE(std::filesystem::exists(trap)) << label;
  }
  Chart c = sample();
  c.series[0].label = "\"; system \"rm";
  EXPECT_THAT(render_svg(c), HasSubstr(">\"; system \"rm<"));
}

TEST(Chart, EmptyAndTinyChartsAreDrawn) {
  SKIP_WITHOUT_GNUPLOT();
  for (const Chart& c :
       {Chart{.title = "none"}, Chart{.title = "empty", .x_scale = Scale::kLog2, .series = {{.label = "nothing"}}},
        Chart{.title = "nan", .y_scale = Scale::kLog, .series = {{.label = "nothing", .x = {1, 2}, .y = {kNan, -1}}}},
        Chart{.title = "point", .y_scale = Scale::kLog2, .series = {{.label = "nothing", .x = {512}, .y = {3}}}}}) {
    const std::string svg = render_svg(c);
    EXPECT_EQ(xml_problem(svg), "") << c.title;
    EXPECT_EQ(svg.find(">nothing<") == std::string::npos, c.series.empty()) << c.title;
    EXPECT_EQ(svg.find(">no data<") != std::string::npos, c.title != "point") << c.title;
  }
}

TEST(Chart, LargeInputDoesNotBlock) {
  SKIP_WITHOUT_GNUPLOT();
  Series s{.label = "long"};
  for (int i = 1; i <= 50000; ++i) {
    s.x.push_back(i);
    s.y.push_back(i % 97);
  }
  EXPECT_EQ(xml_problem(render_svg(Chart{.title = "long", .series = {s}})), "");
}

TEST(HeatMapSvg, HasTicksAndCells) {
  SKIP_WITHOUT_GNUPLOT();
  const std::string svg = render_svg(HeatMap{.title = "Passkey",
                                             .x_label = "length",
                                             .y_label = "depth",
                                             .x_ticks = {"512", "1024"},
                                             .y_ticks = {"0%", "100%"},
                                             .values = {{1.0, 0.25}, {kNan, 0.0}},
                                             .note = "No key \"found\"."});
  EXPECT_EQ(xml_problem(svg), "");
  for (const char* text : {">No key \"found\".<", ">Passkey<", ">length<", ">depth<", ">512<", ">1024<", ">0%<",
                           ">100%<", ">100<", ">25<", ">0<"})
    EXPECT_THAT(svg, HasSubstr(text));
  EXPECT_THAT(svg, Not(HasSubstr("<image")));
}

TEST(Gnuplot, MissingIsAClearError) {
  const PathGuard path("/nonexistent");
  EXPECT_FALSE(gnuplot_available());
  try {
    render_svg(sample());
    FAIL() << "drawn without gnuplot";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kIo);
    EXPECT_THAT(e.what(), HasSubstr("gnuplot is not installed"));
  }
}

TEST(Gnuplot, FailureCarriesItsMessage) {
  const test::TempDir temporary;
  const std::filesystem::path& folder = temporary.path();
  std::ofstream(folder / "gnuplot") << "#!/bin/sh\necho 'out of ink' >&2\nexit 3\n";
  chmod((folder / "gnuplot").c_str(), 0755);
  const PathGuard path(folder.string() + ":/usr/bin:/bin");
  try {
    render_svg(sample());
    FAIL() << "a failing gnuplot went unnoticed";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kIo);
    EXPECT_THAT(e.what(), HasSubstr("\"Perplexity\" (exit code 3): out of ink"));
  }
}

}  // namespace
}  // namespace coca::report::chart_test

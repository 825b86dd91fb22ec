// Everything variable reaches gnuplot as a number or as a quoted string (escape.h): data in datablocks,
// labels in quotes with enhanced text off. Axis ranges are computed here, because gnuplot's own on
// logarithmic axes jump to whole decades.
// SPDX-License-Identifier: Apache-2.0
#include "coca/report/chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <set>
#include <span>
#include <string_view>

#include "coca/base/error.h"
#include "coca/report/child_process.h"
#include "coca/report/escape.h"
#include "coca/report/svg.h"

namespace coca::report {

namespace {

// Okabe and Ito's palette, distinct for every common kind of colour blindness; its yellow, too pale on white,
// is darkened, and black comes last. Shapes differ too, for print.
constexpr std::array<std::string_view, 8> kColors = {"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                                     "#E69F00", "#56B4E9", "#8A7A00", "#000000"};
constexpr std::array<int, 8> kPoints = {7, 5, 9, 13, 11, 15, 6, 4};
constexpr size_t kMostPointsMarked = 40;  // more points than this are drawn as a bare line
constexpr size_t kMostTicks = 14;
constexpr size_t kLongestLabelRight = 24;  // bytes; a longer label would squeeze the plot

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  bool empty() const { return low > high; }
  void include(double v) {
    low = std::min(low, v);
    high = std::max(high, v);
  }
};

bool drawable(double v, Scale scale) { return std::isfinite(v) && (scale == Scale::kLinear || v > 0); }

bool drawable(const Chart& chart, const Series& s, size_t i) {
  return drawable(s.x[i], chart.x_scale) && drawable(s.y[i], chart.y_scale);
}

size_t count_drawable(const Chart& chart, const Series& s) {
  size_t count = 0;
  for (size_t i = 0; i < s.x.size(); ++i) count += drawable(chart, s, i);
  return count;
}

void check(const Chart& chart) {
  COCA_CHECK(chart.width >= 200 && chart.height >= 120, "[chart] \"{}\": {} x {} is too small", chart.title,
             chart.width, chart.height);
  for (const Series& s : chart.series) {
    COCA_CHECK(s.x.size() == s.y.size(), "[chart] \"{}\", \"{}\": {} x values and {} y values", chart.title, s.label,
               s.x.size(), s.y.size());
    COCA_CHECK(s.y_low.size() == s.y_high.size() && (s.y_low.empty() || s.y_low.size() == s.y.size()),
               "[chart] \"{}\", \"{}\": {} y values, {} lower and {} upper bounds", chart.title, s.label, s.y.size(),
               s.y_low.size(), s.y_high.size());
    COCA_CHECK(!s.color_index || *s.color_index >= 0, "[chart] \"{}\", \"{}\": color_index {} is negative", chart.title,
               s.label, s.color_index.value_or(0));
  }
}

Range x_range(const Chart& chart) {
  Range range;
  for (const Series& s : chart.series)
    for (size_t i = 0; i < s.x.size(); ++i)
      if (drawable(chart, s, i)) range.include(s.x[i]);
  if (chart.vertical_line && drawable(chart.vertical_line->x, chart.x_scale)) range.include(chart.vertical_line->x);
  if (range.empty()) return {1, 2};
  if (chart.x_scale == Scale::kLinear) {
    const double pad = range.high > range.low ? 0.02 * (range.high - range.low) : 0.5;
    return {range.low - pad, range.high + pad};
  }
  const double factor = range.high > range.low ? std::pow(range.high / range.low, 0.03) : 2.0;
  return {range.low / factor, range.high * factor};
}

Range y_range(const Chart& chart) {
  Range range;
  for (const Series& s : chart.series)
    for (size_t i = 0; i < s.y.size(); ++i) {
      if (!drawable(chart, s, i)) continue;
      range.include(s.y[i]);
      if (s.y_low.empty()) continue;
      if (drawable(s.y_low[i], chart.y_scale)) range.include(s.y_low[i]);
      if (drawable(s.y_high[i], chart.y_scale)) range.include(s.y_high[i]);
    }
  if (range.empty()) range = {1, 2};
  if (chart.y_scale == Scale::kLinear) {
    // Start at zero where that costs little: lengths of distances then mean something.
    const bool from_zero = range.low >= 0 && range.low < 0.4 * range.high;
    const double pad =
        range.high > range.low ? 0.05 * (range.high - range.low) : std::max(0.5 * std::abs(range.high), 0.5);
    range = {from_zero ? 0 : range.low - pad, range.high + pad};
  } else {
    const double factor = range.high > range.low ? std::pow(range.high / range.low, 0.05) : 2.0;
    range = {range.low / factor, range.high * factor};
  }
  if (chart.y_min && drawable(*chart.y_min, chart.y_scale)) range.low = *chart.y_min;
  if (chart.y_max && drawable(*chart.y_max, chart.y_scale)) range.high = *chart.y_max;
  COCA_CHECK(range.low < range.high, "[chart] \"{}\": no values between y_min {} and y_max {}", chart.title, range.low,
             range.high);
  return range;
}

int floor_int(double v) { return static_cast<int>(std::floor(v)); }

// Round numbers at equal distances: four to nine of them in any range.
std::vector<double> even_ticks(const Range& range) {
  const double rough = (range.high - range.low) / 8, decade = std::pow(10.0, floor_int(std::log10(rough)));
  double step = 10 * decade;
  for (const double factor : {5.0, 2.0})
    if (factor * decade >= rough) step = factor * decade;
  std::vector<double> ticks;
  const double first = std::ceil(range.low / step);
  for (int i = 0; i < 10 && (first + i) * step <= range.high; ++i) ticks.push_back((first + i) * step);
  return ticks;
}

// Tick positions on a logarithmic axis: whole decades when there are enough, else finer steps within them, and
// even steps where the axis is nearly linear.
std::vector<double> log_ticks(const Range& range) {
  const double decades = std::log10(range.high / range.low);
  std::vector<double> steps = {1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8};
  if (decades > 4)
    steps = {1};
  else if (decades > 1.3)
    steps = {1, 2, 5};
  else if (decades > 1.0)
    steps = {1, 1.5, 2, 3, 5, 7};
  if (decades > 12) return {};  // gnuplot's choice is good
  std::vector<double> ticks;
  for (int decade = floor_int(std::log10(range.low)); decade <= floor_int(std::log10(range.high)); ++decade)
    for (const double step : steps) {
      const double tick = step * std::pow(10.0, decade);
      if (tick >= range.low && tick <= range.high) ticks.push_back(tick);
    }
  return ticks.size() < 3 ? even_ticks(range) : ticks;
}

std::vector<double> log2_ticks(const Range& range) {
  const int first = -floor_int(-std::log2(range.low)), last = floor_int(std::log2(range.high));
  if (last - first >= static_cast<int>(kMostTicks)) return {};
  std::vector<double> ticks;
  for (int power = first; power <= last; ++power) ticks.push_back(std::exp2(power));
  return ticks.size() < 2 ? even_ticks(range) : ticks;
}

// gnuplot labels the ticks of a linear axis with six digits, which read the same when the values are this close.
std::vector<double> linear_ticks(const Range& range) {
  const double largest = std::max(std::abs(range.low), std::abs(range.high));
  return range.high - range.low < 1e-4 * largest ? even_ticks(range) : std::vector<double>();
}

std::vector<double> x_ticks(const Chart& chart, const Range& range) {
  if (!chart.x_ticks.empty()) return chart.x_ticks;
  if (chart.x_scale == Scale::kLinear) return linear_ticks(range);
  if (chart.x_scale == Scale::kLog) return log_ticks(range);
  std::set<double> values;
  for (const Series& s : chart.series)
    for (size_t i = 0; i < s.x.size(); ++i)
      if (drawable(chart, s, i)) values.insert(s.x[i]);
  if (values.empty() || values.size() > kMostTicks) return log2_ticks(range);
  if (values.size() == 1 && chart.vertical_line)
    values.insert(std::clamp(chart.vertical_line->x, range.low, range.high));
  if (values.size() == 1) return {*values.begin() / 2, *values.begin(), *values.begin() * 2};  // x_range reaches there
  return {values.begin(), values.end()};
}

std::vector<double> y_ticks(const Chart& chart, const Range& range) {
  if (chart.y_scale == Scale::kLinear) return linear_ticks(range);
  return chart.y_scale == Scale::kLog ? log_ticks(range) : log2_ticks(range);
}

std::string tick_label(double v, int digits) {
  return v >= 1e-4 && v < 1e7 ? fmt::format("{:.{}g}", v, digits) : fmt::format("{:.{}g}", v, std::max(digits - 5, 2));
}

std::string tick_command(std::string_view axis, const std::vector<double>& ticks) {
  if (ticks.empty()) return "";
  // More digits where neighbours would read the same.
  int digits = 7;
  for (size_t i = 1; i < ticks.size(); ++i)
    while (digits < 17 && tick_label(ticks[i - 1], digits) == tick_label(ticks[i], digits)) ++digits;
  std::string list;
  for (const double tick : ticks)
    list += fmt::format("{}'{}' {}", list.empty() ? "" : ", ", tick_label(tick, digits), tick);
  return fmt::format("set {}tics ({})\n", axis, list);
}

// "x y low high" lines; a blank line ends a stretch, so that no line is drawn across what is missing.
std::string data_lines(const Chart& chart, const Series& s) {
  std::string out;
  bool gap = false;
  for (size_t i = 0; i < s.x.size(); ++i) {
    if (!drawable(chart, s, i)) {
      gap = !out.empty();
      continue;
    }
    const auto bound = [&](const std::vector<double>& bounds) {
      return bounds.empty() || !drawable(bounds[i], chart.y_scale) ? s.y[i] : bounds[i];
    };
    out += fmt::format("{}{} {} {} {}\n", gap ? "\n" : "", s.x[i], s.y[i], bound(s.y_low), bound(s.y_high));
    gap = false;
  }
  return out;
}

std::string common_settings(const std::string& title, int width, int height) {
  return fmt::format(
      "set encoding utf8\n"
      "set terminal svg size {},{} fixed noenhanced font 'Arial,14' linewidth 1 background '#ffffff'\n"
      "set title {} font 'Arial:Bold,16' textcolor rgb '#222222' noenhanced\n"
      "set border 3 linecolor rgb '#555555' linewidth 1\n"
      "set tics nomirror out scale 0.6 textcolor rgb '#333333'\n",
      width, height, quote_gnuplot(title));
}

// below: what follows the label of the x axis; an empty line keeps a legend apart from it.
std::string axis_labels(const std::string& x, const std::string& y, std::string_view below = "") {
  return fmt::format(
      "set xlabel {}{} textcolor rgb '#222222' noenhanced\nset ylabel {} textcolor rgb '#222222' noenhanced\n",
      quote_gnuplot(x), below, quote_gnuplot(y));
}

std::string scale_command(std::string_view axis, Scale scale) {
  if (scale == Scale::kLinear) return "";
  return fmt::format("set logscale {} {}\n", axis, scale == Scale::kLog ? 10 : 2);
}

std::string marker_command(const Chart& chart, const Range& x) {
  if (!chart.vertical_line || !drawable(chart.vertical_line->x, chart.x_scale)) return "";
  const double at = chart.vertical_line->x;
  const double share = chart.x_scale == Scale::kLinear ? (at - x.low) / (x.high - x.low)
                                                       : std::log(at / x.low) / std::log(x.high / x.low);
  const bool left = share < 0.6;  // the label is on the side with more room
  return fmt::format(
      "set arrow 1 from {0}, graph 0 to {0}, graph 1 nohead back linecolor rgb '#666666' linewidth 1.2 "
      "dashtype (6,5)\n"
      "set label 1 {1} at {0}, graph 0.965 {2} offset character {3},0 front noenhanced font 'Arial,12' "
      "textcolor rgb '#555555'\n",
      at, quote_gnuplot(chart.vertical_line->label), left ? "left" : "right", left ? "0.6" : "-0.6");
}

Legend legend_of(const Chart& chart) {
  if (chart.legend != Legend::kAuto) return chart.legend;
  size_t longest = 0;
  for (const Series& s : chart.series) longest = std::max(longest, s.label.size());
  return longest > kLongestLabelRight ? Legend::kBelow : Legend::kRight;
}

std::string legend_command(Legend legend) {
  if (legend == Legend::kNone) return "unset key\n";
  return fmt::format("set key outside {} Left reverse samplen 2.2 spacing 1.25 noenhanced textcolor rgb '#222222'\n",
                     legend == Legend::kBelow ? "below center horizontal" : "right top vertical");
}

// The plot commands of one series: band or bars first (below), then the line.
std::string plot_items(const Chart& chart, size_t index) {
  const Series& s = chart.series[index];
  const size_t color = static_cast<size_t>(s.color_index.value_or(static_cast<int>(index)));
  const std::string_view rgb = kColors[color % kColors.size()];
  const size_t points = count_drawable(chart, s);
  const bool marked = points <= kMostPointsMarked;
  const std::string look =
      fmt::format("with {} linecolor rgb '{}' linewidth {} dashtype {}{} title {}", marked ? "linespoints" : "lines",
                  rgb, marked ? "2.2" : "1.6", s.line == LineStyle::kDashed ? "(7,4)" : "1",
                  marked ? fmt::format(" pointtype {} pointsize 0.7", kPoints[color % kPoints.size()]) : "",
                  quote_gnuplot(s.label));
  if (points == 0) return "NaN " + look;  // keeps its place in the legend
  std::string out;
  if (!s.y_low.empty() && s.spread == Spread::kBand)
    out += fmt::format(
        "$s{} using 1:3:4 with filledcurves fillcolor rgb '{}' fillstyle transparent solid 0.18 noborder "
        "notitle, ",
        index, rgb);
  if (!s.y_low.empty() && s.spread == Spread::kErrorBars)
    out += fmt::format("$s{} using 1:2:3:4 with yerrorbars linecolor rgb '{}' linewidth 1.2 pointtype 0 notitle, ",
                       index, rgb);
  return out + fmt::format("$s{} using 1:2 {}", index, look);
}

}  // namespace

std::string gnuplot_script(const Chart& chart) {
  check(chart);
  const Range x = x_range(chart), y = y_range(chart);
  const Legend legend = legend_of(chart);
  const bool below = legend == Legend::kBelow;
  const int legend_height = below ? 18 + 26 * static_cast<int>((chart.series.size() + 1) / 2) : 0;
  std::string out = common_settings(chart.title, chart.width, chart.height + legend_height) +
                    axis_labels(chart.x_label, chart.y_label, below ? ".\"\\n\"" : "");
  out += "set grid xtics ytics back linecolor rgb '#e2e2e2' linewidth 1 linetype 1\n";
  out += scale_command("x", chart.x_scale) + scale_command("y", chart.y_scale);
  out += fmt::format("set xrange [{}:{}]\nset yrange [{}:{}]\n", x.low, x.high, y.low, y.high);
  out += tick_command("x", x_ticks(chart, x));
  out += tick_command("y", y_ticks(chart, y));
  out += legend_command(legend) + marker_command(chart, x);
  const bool any = std::any_of(chart.series.begin(), chart.series.end(),
                               [&](const Series& s) { return count_drawable(chart, s) > 0; });
  if (!any) out += "set label 2 'no data' at graph 0.5, graph 0.5 center textcolor rgb '#777777'\n";
  std::string plot;
  for (size_t i = 0; i < chart.series.size(); ++i) {
    out += fmt::format("$s{} << END_OF_SERIES\n{}END_OF_SERIES\n", i, data_lines(chart, chart.series[i]));
    plot += (plot.empty() ? "plot " : ", \\\n  ") + plot_items(chart, i);
  }
  return out + (plot.empty() ? "plot NaN notitle" : plot) + "\n";
}

std::string render_svg(const Chart& chart) { return run_gnuplot(gnuplot_script(chart), chart.title); }

bool gnuplot_available() { return program_in_path("gnuplot"); }

}  // namespace coca::report

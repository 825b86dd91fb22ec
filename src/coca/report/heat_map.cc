// A heat map is one rectangle a cell ("with boxxyerror"), so that the SVG stays vector and tiles have seams.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "coca/base/error.h"
#include "coca/report/chart.h"
#include "coca/report/escape.h"
#include "coca/report/svg.h"

namespace coca::report {

namespace {

constexpr size_t kMostLabelledCells = 200;

void check(const HeatMap& map) {
  COCA_CHECK(!map.x_ticks.empty() && !map.y_ticks.empty(), "[heat map] \"{}\": no columns or no rows", map.title);
  COCA_CHECK(map.values.size() == map.y_ticks.size(), "[heat map] \"{}\": {} rows of values and {} row names",
             map.title, map.values.size(), map.y_ticks.size());
  for (const auto& row : map.values) {
    COCA_CHECK(row.size() == map.x_ticks.size(), "[heat map] \"{}\": a row of {} values and {} column names", map.title,
               row.size(), map.x_ticks.size());
    for (const double v : row)
      COCA_CHECK(!std::isfinite(v) || (v >= 0 && v <= 1), "[heat map] \"{}\": {} is not within 0..1", map.title, v);
  }
}

std::string tick_names(const std::vector<std::string>& names) {
  std::string out;
  for (size_t i = 0; i < names.size(); ++i)
    out += fmt::format("{}{} {}", i ? ", " : "", quote_gnuplot_tick(names[i]), i);
  return out;
}

}  // namespace

std::string gnuplot_script(const HeatMap& map) {
  check(map);
  const size_t columns = map.x_ticks.size(), rows = map.y_ticks.size();
  std::string light, dark, tiles;  // light text on dark tiles
  for (size_t y = 0; y < rows; ++y)
    for (size_t x = 0; x < columns; ++x) {
      const double percent = 100 * map.values[y][x];
      if (!std::isfinite(percent)) continue;
      tiles += fmt::format("{} {} {} {} {} {} {}\n", x, y, static_cast<double>(x) - 0.5, static_cast<double>(x) + 0.5,
                           static_cast<double>(y) - 0.5, static_cast<double>(y) + 0.5, percent);
      (percent > 55 ? light : dark) += fmt::format("{} {} {:.0f}\n", x, y, percent);
    }
  std::string out = fmt::format(
      "set encoding utf8\n"
      "set terminal svg size {},{} fixed noenhanced font 'Arial,14' linewidth 1 background '#ffffff'\n"
      "set title {} font 'Arial:Bold,16' textcolor rgb '#222222' noenhanced\n"
      "set xlabel {} textcolor rgb '#222222' noenhanced\nset ylabel {} textcolor rgb '#222222' noenhanced\n",
      map.width, map.height, quote_gnuplot(map.title), quote_gnuplot(map.x_label), quote_gnuplot(map.y_label));
  if (!map.note.empty())
    out += fmt::format(
        "set bmargin 6\nset label {} at screen 0.5, screen 0.04 center noenhanced font 'Arial,12' textcolor rgb "
        "'#444444'\n",
        quote_gnuplot(map.note));
  out += fmt::format(
      "set border 0\nset tics nomirror scale 0 textcolor rgb '#333333' noenhanced\nunset key\n"
      "set xtics ({})\nset ytics ({})\nset xrange [-0.5:{}]\nset yrange [{}:-0.5]\n",
      tick_names(map.x_ticks), tick_names(map.y_ticks), static_cast<double>(columns) - 0.5,
      static_cast<double>(rows) - 0.5);
  out +=
      "set palette defined (0 '#f1f4f8', 0.25 '#bfd7ea', 0.5 '#74add1', 0.75 '#2f7ab5', 1 '#08396b')\n"
      "set cbrange [0:100]\nset cbtics ('0%%' 0, '25%%' 25, '50%%' 50, '75%%' 75, '100%%' 100)\n"
      "set style fill solid 1.0 border rgb '#ffffff'\n";
  out += fmt::format("$tiles << END_OF_TILES\n{}END_OF_TILES\n", tiles);
  std::string plot = tiles.empty() ? "plot NaN notitle"
                                   : "plot $tiles using 1:2:3:4:5:6:7 with boxxyerror fillcolor palette linewidth 2";
  if (columns * rows <= kMostLabelledCells) {
    const auto labels = [&](const std::string& lines, std::string_view name, std::string_view rgb) {
      if (lines.empty()) return;
      out += fmt::format("${0} << END_OF_LABELS\n{1}END_OF_LABELS\n", name, lines);
      plot += fmt::format(", ${} using 1:2:3 with labels textcolor rgb '{}' font 'Arial,12'", name, rgb);
    };
    labels(light, "light", "#ffffff");
    labels(dark, "dark", "#222222");
  }
  return out + plot + "\n";
}

std::string render_svg(const HeatMap& map) { return run_gnuplot(gnuplot_script(map), map.title); }

}  // namespace coca::report

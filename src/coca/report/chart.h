// coca/report/chart.h - line charts and heat maps as SVG text, drawn by gnuplot.
// Values that are not finite, and values <= 0 on a logarithmic axis, are left out and the line has a gap
// there.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace coca::report {

enum class Scale : uint8_t { kLinear, kLog, kLog2 };
enum class LineStyle : uint8_t { kSolid, kDashed };
enum class Spread : uint8_t { kBand, kErrorBars };             // how y_low..y_high is drawn
enum class Legend : uint8_t { kAuto, kRight, kBelow, kNone };  // kAuto: right, but below for long labels

struct Series {
  std::string label;
  std::vector<double> x, y;
  std::vector<double> y_low, y_high;  // both or neither
  Spread spread = Spread::kBand;
  LineStyle line = LineStyle::kSolid;
  std::optional<int> color_index;  // 0-based; by default the place in Chart::series
};

struct Marker {  // a vertical line
  double x = 0;
  std::string label;
};

struct Chart {
  std::string title, x_label, y_label;
  Scale x_scale = Scale::kLinear, y_scale = Scale::kLinear;
  std::optional<double> y_min, y_max;
  std::vector<double> x_ticks;  // default: on a log2 axis the x values themselves, else gnuplot's choice
  std::vector<Series> series;
  std::optional<Marker> vertical_line;  // for example the trained length
  Legend legend = Legend::kAuto;
  int width = 780, height = 430;  // a legend below adds its own height
};

// Shares from 0 to 1, shown in percent: passkey length across, depth down. NaN leaves a cell empty.
struct HeatMap {
  std::string title, x_label, y_label;
  std::vector<std::string> x_ticks, y_ticks;
  std::vector<std::vector<double>> values;  // [y][x]; row 0 is at the top
  std::string note;                         // one line under the map; may be empty
  int width = 780, height = 430;
};

// Throws Error kIo when gnuplot is missing or fails, kInvalidArgument when lengths do not agree.
std::string render_svg(const Chart& chart);
std::string render_svg(const HeatMap& map);

bool gnuplot_available();

// The scripts themselves, for tests.
std::string gnuplot_script(const Chart& chart);
std::string gnuplot_script(const HeatMap& map);

}  // namespace coca::report

// SPDX-License-Identifier: Apache-2.0
#include "coca/analyse/charts.h"

#include <algorithm>
#include <cmath>

#include "coca/analyse/results.h"
#include "coca/base/count.h"

namespace coca::analyse {

namespace {

constexpr int64_t kMostCurves = 4;  // layers or planes in one chart
constexpr int kFarPoints = 160;

report::Marker trained_marker(const Analysis& a) {
  return {static_cast<double>(a.spec.max_position), "trained length"};
}

// The starts of the octaves; the centres, where the points are, are not round numbers.
std::vector<double> octave_ticks(const Analysis& a) {
  std::vector<double> ticks = {bin_centre(0)};
  for (size_t bin = 1; bin <= distance_bin(a.window - 1); ++bin) ticks.push_back(static_cast<double>(bin_begin(bin)));
  return ticks;
}

std::vector<int64_t> some_layers(const Analysis& a) { return spread_over(a.spec.L, kMostCurves); }

// Points of all entries of one scaling, in the order of their multiples.
template <class Value>
std::vector<report::Series> by_scaling(const Analysis& a, const Value& value) {
  std::vector<report::Series> out;
  for (const ScaledBorders& b : a.borders) {
    const std::string name = scaling_name(b.scaling);
    auto at = std::find_if(out.begin(), out.end(), [&](const report::Series& s) { return s.label == name; });
    if (at == out.end()) at = out.insert(out.end(), report::Series{.label = name});
    at->x.push_back(static_cast<double>(b.multiple));
    at->y.push_back(value(b));
  }
  return out;
}

std::vector<const ScaledBorders*> farthest(const Analysis& a) {
  int64_t largest = 0;
  for (const ScaledBorders& b : a.borders) largest = std::max(largest, b.multiple);
  std::vector<const ScaledBorders*> out;
  for (const ScaledBorders& b : a.borders)
    if (b.multiple == largest) out.push_back(&b);
  return out;
}

}  // namespace

report::Chart angle_chart(const Analysis& a) {
  report::Chart chart;
  chart.title = "Initial angle between query and key";
  chart.x_label = "angle / pi";
  chart.y_label = "density (1: all angles alike)";
  chart.vertical_line = report::Marker{1, "anomaly from here on"};
  const HeadStats all = a.all();
  for (const int64_t at : spread_over(static_cast<int64_t>(all.planes.size()), kMostCurves)) {
    const AngleStats& plane = all.planes[static_cast<size_t>(at)];
    report::Series series{.label = fmt::format("plane {}", at)};
    for (size_t i = 0; i < AngleStats::kBins; ++i) {
      series.x.push_back((2 * static_cast<double>(i) + 1) / static_cast<double>(AngleStats::kBins));
      series.y.push_back(ratio(static_cast<double>(plane.histogram[i] * static_cast<int64_t>(AngleStats::kBins)),
                               static_cast<double>(plane.pairs)));
    }
    chart.series.push_back(std::move(series));
  }
  return chart;
}

report::Chart tau_chart(const Analysis& a) {
  report::Chart chart;
  chart.title = "Length of the anomaly by plane";
  chart.x_label = "plane (fastest first)";
  chart.y_label = "tau (tokens)";
  chart.y_scale = report::Scale::kLog;
  const HeadStats all = a.all();
  report::Series median{.label = "median, 10-90 %"},
      trained{.label = "trained length", .line = report::LineStyle::kDashed};
  for (size_t j = 0; j < all.planes.size(); ++j) {
    const auto tau = [&](double q) { return all.planes[j].rising_quantile(q, a.rotation.frequencies[j]); };
    median.x.push_back(static_cast<double>(j));
    median.y.push_back(tau(0.5));
    median.y_low.push_back(tau(0.1));
    median.y_high.push_back(tau(0.9));
    trained.x.push_back(static_cast<double>(j));
    trained.y.push_back(static_cast<double>(a.spec.max_position));
  }
  chart.series = {std::move(median), std::move(trained)};
  return chart;
}

report::Chart score_chart(const Analysis& a) {
  report::Chart chart;
  chart.title = "Mean score by distance";
  chart.x_label = "distance (tokens; 1/2: the token itself)";
  chart.y_label = "score / sqrt(D)";
  chart.x_scale = report::Scale::kLog2;
  chart.x_ticks = octave_ticks(a);
  int color = 0;
  for (const int64_t i : some_layers(a)) {
    const HeadStats layer = a.layer(i);
    report::Series measured{.label = fmt::format("layer {}", i), .color_index = color};
    report::Series content{
        .label = fmt::format("layer {}, all pairs", i), .line = report::LineStyle::kDashed, .color_index = color++};
    for (size_t bin = 0; bin < layer.attention.mass.size(); ++bin) {
      measured.x.push_back(bin_centre(bin));
      measured.y.push_back(layer.attention.mean_score(bin));
      if (!is_rotary(a)) continue;
      content.x.push_back(bin_centre(bin));
      content.y.push_back(content_score(a, layer, bin));
    }
    chart.series.push_back(std::move(measured));
    if (is_rotary(a)) chart.series.push_back(std::move(content));
  }
  return chart;
}

report::Chart far_score_chart(const Analysis& a) {
  report::Chart chart;
  chart.title = "Score of all pairs' content by distance and scaling";
  chart.x_label = "distance (tokens)";
  chart.y_label = "score / sqrt(D)";
  chart.x_scale = report::Scale::kLog2;
  chart.vertical_line = trained_marker(a);
  const HeadStats all = a.all();
  for (const ScaledBorders* b : farthest(a)) {
    report::Series series{.label = scaling_name(b->scaling)};
    const double last = static_cast<double>(a.spec.max_position * b->multiple);
    for (int i = 0; i <= kFarPoints; ++i) {
      series.x.push_back(std::pow(last, static_cast<double>(i) / kFarPoints));
      series.y.push_back(all.score_at(series.x.back(), b->rotation, a.spec.D));
    }
    chart.series.push_back(std::move(series));
  }
  return chart;
}

report::Chart unseen_chart(const Analysis& a) {
  report::Chart chart;
  chart.title = "Distances at unseen angles";
  chart.x_label = "length / trained length";
  chart.y_label = "share, mean over planes";
  chart.x_scale = report::Scale::kLog2;
  chart.y_min = 0;
  chart.series = by_scaling(a, [](const ScaledBorders& b) { return b.unseen_share(); });
  return chart;
}

report::Chart compression_chart(const Analysis& a) {
  report::Chart chart;
  const std::vector<const ScaledBorders*> far = farthest(a);
  chart.title = fmt::format("Slowing of planes at {} times the trained length", far.front()->multiple);
  chart.x_label = "plane (fastest first)";
  chart.y_label = "trained theta / theta";
  chart.y_scale = report::Scale::kLog2;
  for (const ScaledBorders* b : far) {
    report::Series series{.label = scaling_name(b->scaling)};
    for (size_t j = 0; j < b->planes.size(); ++j) {
      series.x.push_back(static_cast<double>(j));
      series.y.push_back(b->planes[j].compression);
    }
    chart.series.push_back(std::move(series));
  }
  return chart;
}

report::Chart distance_chart(const Analysis& a) {
  report::Chart chart;
  chart.title = "Where attention goes, by distance";
  chart.x_label = "distance (tokens, by octave; 1/2: the token itself)";
  chart.y_label = "share of attention";
  chart.x_scale = report::Scale::kLog2;
  chart.x_ticks = octave_ticks(a);
  chart.y_min = 0;
  for (const int64_t i : some_layers(a)) {
    const HeadStats layer = a.layer(i);
    report::Series series{.label = fmt::format("layer {}", i)};
    for (size_t bin = 0; bin < layer.attention.mass.size(); ++bin) {
      series.x.push_back(bin_centre(bin));
      series.y.push_back(layer.attention.mass_share(bin));
    }
    chart.series.push_back(std::move(series));
  }
  return chart;
}

report::Chart shift_chart(const Analysis& a) {
  report::Chart chart;
  chart.title = "Change of scores when both positions move";
  chart.x_label = "layer";
  chart.y_label = "rms change / rms score";
  chart.y_min = 0;
  for (size_t i = 0; i < a.shifts.size(); ++i) {
    report::Series series{.label = fmt::format("by {}", counted(a.shifts[i], "token"))};
    for (int64_t layer = 0; layer < a.spec.L; ++layer) {
      series.x.push_back(static_cast<double>(layer));
      series.y.push_back(a.layer(layer).collinear.moved_departure(i));
    }
    chart.series.push_back(std::move(series));
  }
  return chart;
}

report::HeatMap head_map(const Analysis& a, const std::string& title, HeadFigure figure) {
  report::HeatMap map;
  map.title = title;
  map.x_label = "head";
  map.y_label = "layer";
  for (int64_t h = 0; h < a.spec.H; ++h) map.x_ticks.push_back(fmt::format("{}", h));
  for (int64_t i = 0; i < a.spec.L; ++i) {
    map.y_ticks.push_back(fmt::format("{}", i));
    map.values.emplace_back();
    for (int64_t h = 0; h < a.spec.H; ++h)
      map.values.back().push_back(std::min(1.0, figure(a.head(i, h))));  // NaN stays
  }
  return map;
}

}  // namespace coca::analyse

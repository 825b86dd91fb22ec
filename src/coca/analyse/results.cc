// SPDX-License-Identifier: Apache-2.0
#include "coca/analyse/results.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace coca::analyse {

namespace {

using nlohmann::ordered_json;

constexpr int64_t kMostPlanesShown = 16;
constexpr int64_t kMostDistances = 64;  // of an octave, for its mean

std::string number(double value) {
  return report::format_number(std::isnan(value) ? std::nullopt : std::optional(value), 3);
}

ordered_json figure(double value) { return std::isnan(value) ? ordered_json(nullptr) : ordered_json(value); }

template <class Values, class Function>
ordered_json list(const Values& values, const Function& value_of) {
  ordered_json out = ordered_json::array();
  for (const auto& value : values) out.push_back(value_of(value));
  return out;
}

void fill_courses(ordered_json& j, const AngleStats& a) {
  for (const auto& course : EnumTraits<Course>::names()) {
    j[std::string(course.name)] = figure(a.share(course.value));
    j[std::string(course.name) + "_weighted"] = figure(a.weighted_share(course.value));
  }
}

void fill_angles(ordered_json& j, const AngleStats& a) {
  j["pairs"] = a.pairs;
  j["anomalous"] = figure(a.anomalous_share());
  j["anomalous_weighted"] = figure(a.weighted_anomalous_share());
  j["mean_angle"] = figure(a.mean_angle());
  j["concentration"] = figure(a.concentration());
  fill_courses(j, a);
}

void fill_head(ordered_json& j, const HeadStats& head, const Analysis& a) {
  if (is_rotary(a)) fill_angles(j, head.all_planes());
  j["entropy"] = figure(head.attention.mean_entropy());
  j["entropy_share"] = figure(head.attention.mean_entropy_share());
  j["first_token"] = figure(head.attention.mean_first_token());
  j["first_four"] = figure(head.attention.mean_sink());
  j["distance"] = figure(head.attention.mean_distance());
  if (!is_coca(a)) return;
  j["zero_t"] = figure(head.collinear.zero_share());
  if (!has_collinear_planes(a.spec)) return;
  j["strict_minus_slack"] = figure(head.collinear.departure());
  for (size_t i = 0; i < a.shifts.size(); ++i)
    j[fmt::format("moved_by_{}", a.shifts[i])] = figure(head.collinear.moved_departure(i));
  j["largest_angle"] = head.collinear.largest_angle;
}

ordered_json plane_json(const AngleStats& plane, double theta) {
  ordered_json j;
  j["theta"] = theta;
  j["period"] = kTurn / theta;
  fill_angles(j, plane);
  j["mean_weight"] = figure(ratio(plane.weight, static_cast<double>(plane.pairs)));
  for (const double q : {0.1, 0.5, 0.9}) j[fmt::format("tau_{:g}", 100 * q)] = figure(plane.rising_quantile(q, theta));
  return j;
}

ordered_json distances_json(const HeadStats& head, const Analysis& a) {
  ordered_json j;
  for (size_t bin = 0; bin < head.attention.mass.size(); ++bin) {
    j["from"].push_back(bin_begin(bin));
    j["attention"].push_back(figure(head.attention.mass_share(bin)));
    j["score"].push_back(figure(head.attention.mean_score(bin)));
    if (is_rotary(a)) j["score_of_all_pairs"].push_back(figure(content_score(a, head, bin)));
  }
  return j;
}

ordered_json borders_json(const ScaledBorders& b) {
  ordered_json j;
  j["scaling"] = scaling_name(b.scaling);
  j["factor"] = b.scaling.factor;
  j["multiple"] = b.multiple;
  j["unseen_planes"] = b.unseen_planes();
  j["unseen_distances"] = figure(b.unseen_share());
  j["opposite_passed"] = figure(b.opposite_passed());
  j["compressed_planes"] = b.compressed_planes();
  j["planes"] = list(b.planes, [](const PlaneBorders& p) {
    return ordered_json{{"compression", p.compression},
                        {"trained_turns", p.trained_turns},
                        {"turns", p.turns},
                        {"opposite_passed", figure(p.opposite)},
                        {"unseen", p.unseen}};
  });
  return j;
}

// One object per layer and head, begun with both numbers.
template <class Function>
ordered_json by_head(const Analysis& a, const Function& fill) {
  ordered_json out = ordered_json::array();
  for (int64_t i = 0; i < a.spec.L; ++i)
    for (int64_t h = 0; h < a.spec.H; ++h) {
      ordered_json j{{"layer", i}, {"head", h}};
      fill(j, a.head(i, h));
      out.push_back(std::move(j));
    }
  return out;
}

ordered_json planes_json(const Analysis& a) {
  ordered_json out = ordered_json::array();
  for (int64_t i = 0; i < a.spec.L; ++i)
    for (int64_t h = 0; h < a.spec.H; ++h)
      for (size_t p = 0; p < a.rotation.frequencies.size(); ++p) {
        ordered_json j{{"layer", i}, {"head", h}, {"plane", p}};
        j.update(plane_json(a.head(i, h).planes[p], a.rotation.frequencies[p]));
        out.push_back(std::move(j));
      }
  return out;
}

}  // namespace

bool is_rotary(const Analysis& a) { return !a.rotation.frequencies.empty(); }
bool is_coca(const Analysis& a) { return model::is_coca(a.spec.attention); }

std::string percent(double share) { return std::isnan(share) ? "-" : fmt::format("{:.1f} %", 100 * share); }

std::vector<int64_t> spread_over(int64_t count, int64_t most) {
  if (most >= count) most = count;
  std::vector<int64_t> out;
  for (int64_t i = 0; i < most; ++i) out.push_back(most == 1 ? 0 : (i * (count - 1) + (most - 1) / 2) / (most - 1));
  return out;
}

double content_score(const Analysis& a, const HeadStats& head, size_t bin) {
  const int64_t begin = bin_begin(bin), end = std::min(bin_begin(bin + 1), a.window);
  double sum = 0, count = 0;
  for (const int64_t at : spread_over(end - begin, kMostDistances)) {
    sum += head.score_at(static_cast<double>(begin + at), a.rotation, a.spec.D);
    ++count;
  }
  return ratio(sum, count);
}

report::Table layer_table(const Analysis& a) {
  report::Table table{.title = "By layer, means over heads", .header = {"layer"}, .rows = {}, .align = {}};
  if (is_rotary(a)) table.header.insert(table.header.end(), {"anomalous", "weighted"});
  table.header.insert(table.header.end(), {"entropy", "of ln(keys)", "first token", "first 4", "mean distance"});
  if (is_coca(a)) table.header.insert(table.header.end(), {"strict - slack", "zero t"});
  const auto row = [&](std::string name, const HeadStats& s) {
    std::vector<std::string> cells{std::move(name)};
    if (is_rotary(a)) {
      const AngleStats angles = s.all_planes();
      cells.insert(cells.end(), {percent(angles.anomalous_share()), percent(angles.weighted_anomalous_share())});
    }
    cells.insert(cells.end(), {number(s.attention.mean_entropy()), percent(s.attention.mean_entropy_share()),
                               percent(s.attention.mean_first_token()), percent(s.attention.mean_sink()),
                               number(s.attention.mean_distance())});
    if (is_coca(a)) cells.insert(cells.end(), {percent(s.collinear.departure()), percent(s.collinear.zero_share())});
    table.rows.push_back(std::move(cells));
  };
  for (int64_t i = 0; i < a.spec.L; ++i) row(fmt::format("{}", i), a.layer(i));
  row("all", a.all());
  return table;
}

report::Table course_table(const Analysis& a) {
  report::Table table{.title = "How the score of a plane runs over distances 0 to the trained length",
                      .header = {"case", "initial angle", "share of pairs and planes", "weighted by |q||k|"},
                      .rows = {},
                      .align = {}};
  const AngleStats all = a.all().all_planes();
  const auto row = [&](const char* name, const char* angle, Course c) {
    table.rows.push_back({name, angle, percent(all.share(c)), percent(all.weighted_share(c))});
  };
  row("falls throughout", "below pi", Course::kFalls);
  row("falls, then rises", "below pi", Course::kFallsThenRises);
  row("rises throughout (anomaly)", "pi or more", Course::kRises);
  row("rises, then falls (anomaly)", "pi or more", Course::kRisesThenFalls);
  return table;
}

report::Table plane_table(const Analysis& a) {
  const HeadStats all = a.all();
  report::Table table{
      .title = fmt::format(
          "By rotary plane, over all layers and heads; tau is the length of the anomaly in tokens (trained length {})",
          a.spec.max_position),
      .header = {"plane", "period", "share of |q||k|", "anomalous", "weighted", "concentration", "tau 10 %",
                 "tau median", "tau 90 %"},
      .rows = {},
      .align = {}};
  const double weight = all.all_planes().weight;
  for (const int64_t at : spread_over(static_cast<int64_t>(a.rotation.frequencies.size()), kMostPlanesShown)) {
    const auto j = static_cast<size_t>(at);
    const AngleStats& plane = all.planes[j];
    const auto tau = [&](double q) { return number(plane.rising_quantile(q, a.rotation.frequencies[j])); };
    table.rows.push_back({fmt::format("{}", j), number(kTurn / a.rotation.frequencies[j]),
                          percent(ratio(plane.weight, weight)), percent(plane.anomalous_share()),
                          percent(plane.weighted_anomalous_share()), number(plane.concentration()), tau(0.1), tau(0.5),
                          tau(0.9)});
  }
  return table;
}

report::Table borders_table(const Analysis& a) {
  report::Table table{.title = fmt::format("Beyond the trained length ({} planes)", a.rotation.frequencies.size()),
                      .header = {"length", "scaling", "planes at unseen angles", "distances unseen", "pi passed",
                                 "fastest plane slowed", "slowest", "full-circle planes compressed"},
                      .rows = {},
                      .align = {report::Align::kRight, report::Align::kLeft}};
  for (const ScaledBorders& b : a.borders)
    table.rows.push_back({fmt::format("{}x", b.multiple), scaling_name(b.scaling), fmt::format("{}", b.unseen_planes()),
                          percent(b.unseen_share()), number(b.opposite_passed()), number(b.planes.front().compression),
                          number(b.planes.back().compression), fmt::format("{}", b.compressed_planes())});
  return table;
}

report::Table shift_table(const Analysis& a) {
  report::Table table{.title = "Change of scores when both positions move by so many tokens (rms, relative)",
                      .header = {"layer"},
                      .rows = {},
                      .align = {}};
  for (const int64_t shift : a.shifts) table.header.push_back(fmt::format("{}", shift));
  const auto row = [&](std::string name, const HeadStats& s) {
    std::vector<std::string> cells{std::move(name)};
    for (size_t i = 0; i < a.shifts.size(); ++i) cells.push_back(percent(s.collinear.moved_departure(i)));
    table.rows.push_back(std::move(cells));
  };
  for (int64_t i = 0; i < a.spec.L; ++i) row(fmt::format("{}", i), a.layer(i));
  row("all", a.all());
  return table;
}

ordered_json to_json(const Analysis& a) {
  ordered_json j{
      {"window", a.window}, {"windows", a.windows}, {"pairs_per_window", a.pairs}, {"rows_per_window", a.rows}};
  j["frequencies"] = a.rotation.frequencies;
  const HeadStats all = a.all();
  fill_head(j["all"], all, a);
  j["layers"] = ordered_json::array();
  for (int64_t i = 0; i < a.spec.L; ++i) {
    ordered_json layer{{"layer", i}};
    fill_head(layer, a.layer(i), a);
    j["layers"].push_back(std::move(layer));
  }
  j["heads"] = by_head(a, [&](ordered_json& head, const HeadStats& s) { fill_head(head, s, a); });
  j["planes"] = planes_json(a);
  j["distances"] = by_head(a, [&](ordered_json& head, const HeadStats& s) { head.update(distances_json(s, a)); });
  j["histograms"]["bins"] = AngleStats::kBins;
  j["histograms"]["planes"] = list(all.planes, [](const AngleStats& p) { return ordered_json(p.histogram); });
  j["histograms"]["heads"] = list(a.heads, [](const HeadStats& s) { return ordered_json(s.all_planes().histogram); });
  j["borders"] = list(a.borders, borders_json);
  return j;
}

}  // namespace coca::analyse

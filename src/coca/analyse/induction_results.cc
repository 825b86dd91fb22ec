// SPDX-License-Identifier: Apache-2.0
#include "coca/analyse/induction_results.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <tuple>

#include "coca/analyse/charts.h"
#include "coca/analyse/results.h"
#include "coca/base/count.h"
#include "coca/base/version.h"
#include "coca/ops/attention.h"

namespace coca::analyse {

namespace {

using nlohmann::ordered_json;

constexpr int64_t kMostHeads = 48;  // in a table
constexpr auto kNan = std::numeric_limits<double>::quiet_NaN();

using Score = double (*)(const HeadStats&);
double previous(const HeadStats& h) { return h.induction.mean_previous(); }
double induction(const HeadStats& h) { return h.induction.mean_induction(); }
double duplicate(const HeadStats& h) { return h.induction.mean_duplicate(); }

std::string number(double value) {
  return report::format_number(std::isnan(value) ? std::nullopt : std::optional(value), 3);
}
ordered_json figure(double value) { return std::isnan(value) ? ordered_json(nullptr) : ordered_json(value); }

// Scores of distances 0 .. trained length - 1 of the mean content.
std::vector<double> scores_by_distance(const Analysis& a, const HeadStats& head, double slope) {
  std::vector<double> scores;
  for (int64_t s = 0; s < a.spec.max_position; ++s) {
    const auto distance = static_cast<double>(s);
    scores.push_back(head.score_at(distance, a.rotation, a.spec.D) - slope * distance);
  }
  return scores;
}

// The head with the largest score; -1 if none has one.
int64_t best_head(const Analysis& a, Score score) {
  int64_t best = -1;
  for (size_t i = 0; i < a.heads.size(); ++i)
    if (const double value = score(a.heads[i]);
        !std::isnan(value) && (best < 0 || value > score(a.heads[static_cast<size_t>(best)])))
      best = static_cast<int64_t>(i);
  return best;
}

double best_score(const Analysis& a, Score score) {
  const int64_t best = best_head(a, score);
  return best < 0 ? kNan : score(a.heads[static_cast<size_t>(best)]);
}

std::string best_text(const Analysis& a, Score score) {
  const int64_t best = best_head(a, score);
  return best < 0 ? "-" : fmt::format("{} ({}.{})", percent(best_score(a, score)), best / a.spec.H, best % a.spec.H);
}

// All heads, or those that attend most to the token before or to what followed the same token.
std::vector<int64_t> shown_heads(const Analysis& a) {
  std::vector<int64_t> heads(a.heads.size());
  std::iota(heads.begin(), heads.end(), 0);
  if (static_cast<int64_t>(heads.size()) <= kMostHeads) return heads;
  std::ranges::stable_sort(heads, std::greater<>(), [&](int64_t i) {
    const HeadStats& head = a.heads[static_cast<size_t>(i)];
    const double of = std::max(previous(head), induction(head));
    return std::isnan(of) ? -1.0 : of;
  });
  heads.resize(kMostHeads);
  std::ranges::sort(heads);
  return heads;
}

}  // namespace

HeadReach head_reach(const InductionAnalysis& of, int64_t layer, int64_t h) {
  const Analysis& a = of.text ? *of.text : of.random;
  const HeadStats& head = a.head(layer, h);
  const std::vector<char> slow = slow_planes(a.spec, a.rotation, of.slow_turn);
  const bool rotates = !slow.empty() && a.spec.has_positions(static_cast<size_t>(layer));
  const auto values = static_cast<double>(head.content.slow_values());
  HeadReach r;
  r.channels = head.content.channels();
  const auto planes = rotates ? static_cast<double>(std::ranges::count(slow, 1)) : 0.0;
  // A collinear key has one number for each plane, and one for both halves where nothing rotates.
  r.most_channels = !rotates && is_coca(a) ? values / 2 : values - (has_collinear_planes(a.spec) ? planes : 0);
  r.slow_share = head.content.slow_share(rotates ? std::span<const char>(slow) : std::span<const char>());
  r.contrast = std::sqrt(head.content.variance() / static_cast<double>(a.spec.D));
  const double slope = model::uses_alibi(a.spec.attention)
                           ? static_cast<double>(ops::alibi_slopes(a.spec.H)[static_cast<size_t>(h)])
                           : 0.0;
  r.distance = distance_choice(scores_by_distance(a, head, slope));
  r.sharpest = r.distance.best_share;
  if (!rotates) return r;
  HeadStats aligned = head;
  for (AngleStats& plane : aligned.planes) {
    plane.weighted_cos = plane.weight;
    plane.weighted_sin = 0;
  }
  r.sharpest = distance_choice(scores_by_distance(a, aligned, slope)).best_share;
  return r;
}

std::string what_was_read(const InductionAnalysis& a) {
  std::string out = fmt::format("{} of {} that repeat a random sequence", counted(a.random.windows, "window"),
                                counted(a.random.window, "token"));
  if (a.text) out += fmt::format(", and {} of {} of text", counted(a.text->windows, "window"), a.text->window);
  return out +
         fmt::format(
             ". Even attention would give {} to the token before and {} to what followed the same token. Slow planes "
             "turn by at most {:g} of a circle over the trained length, {}.",
             percent(a.random.all().induction.mean_previous_chance()),
             percent(a.random.all().induction.mean_repeat_chance()), a.slow_turn,
             counted(a.random.spec.max_position, "token"));
}

report::Table head_table(const InductionAnalysis& a) {
  report::Table table{
      .title = fmt::format("Attention by head on the token before, on what followed the same token (induction), and on "
                           "that token; what scores can tell apart{}",
                           static_cast<int64_t>(a.random.heads.size()) > kMostHeads
                               ? fmt::format(" ({} of {} heads)", kMostHeads, a.random.heads.size())
                               : ""),
      .header = {"layer", "head", "previous", "induction", "same token"},
      .rows = {},
      .align = {report::Align::kRight}};
  if (a.text) table.header.insert(table.header.end(), {"text: previous", "induction", "same token"});
  table.header.insert(table.header.end(), {"content channels", "of", "slow share", "contrast", "previous by position",
                                           "best distance", "sharpest"});
  for (const int64_t i : shown_heads(a.random)) {
    const int64_t layer = i / a.random.spec.H, head = i % a.random.spec.H;
    std::vector<std::string> row{fmt::format("{}", layer), fmt::format("{}", head)};
    for (const Analysis* of : {&a.random, a.text ? &*a.text : nullptr})
      if (of)
        for (const Score score : {previous, induction, duplicate}) row.push_back(percent(score(of->head(layer, head))));
    const HeadReach r = head_reach(a, layer, head);
    row.insert(row.end(),
               {number(r.channels), fmt::format("{:g}", r.most_channels), percent(r.slow_share), number(r.contrast),
                percent(r.distance.previous), grouped(r.distance.best), percent(r.sharpest)});
    table.rows.push_back(std::move(row));
  }
  return table;
}

report::Table step_table(const std::vector<InductionAnalysis>& all) {
  report::Table table{.title = "Largest scores of any head (layer.head) on repeated random tokens, by step",
                      .header = {"step", "previous", "induction", "same token"},
                      .rows = {},
                      .align = {report::Align::kRight}};
  const bool text = !all.empty() && all.front().text;
  if (text) table.header.insert(table.header.end(), {"text: previous", "induction"});
  table.header.insert(table.header.end(), {"content channels, mean", "previous by position, largest"});
  for (const InductionAnalysis& a : all) {
    std::vector<std::string> row{a.step ? grouped(*a.step) : "-", best_text(a.random, previous),
                                 best_text(a.random, induction), best_text(a.random, duplicate)};
    if (text) row.insert(row.end(), {best_text(*a.text, previous), best_text(*a.text, induction)});
    double channels = 0, count = 0, by_position = 0;
    for (int64_t layer = 0; layer < a.random.spec.L; ++layer)
      for (int64_t h = 0; h < a.random.spec.H; ++h) {
        const HeadReach r = head_reach(a, layer, h);
        by_position = std::max(by_position, r.distance.previous);
        if (std::isnan(r.channels)) continue;
        channels += r.channels;
        ++count;
      }
    row.insert(row.end(), {number(ratio(channels, count)), percent(by_position)});
    table.rows.push_back(std::move(row));
  }
  return table;
}

ordered_json to_json(const std::vector<InductionAnalysis>& all) {
  ordered_json rows = ordered_json::array();
  for (const InductionAnalysis& a : all)
    for (int64_t layer = 0; layer < a.random.spec.L; ++layer)
      for (int64_t h = 0; h < a.random.spec.H; ++h) {
        ordered_json j;
        j["step"] = a.step ? ordered_json(*a.step) : ordered_json(nullptr);
        j["layer"] = layer;
        j["head"] = h;
        const auto scores = [&](const std::string& name, const Analysis& of) {
          const InductionStats& s = of.head(layer, h).induction;
          j[name + "_previous"] = figure(s.mean_previous());
          j[name + "_previous_chance"] = figure(s.mean_previous_chance());
          j[name + "_induction"] = figure(s.mean_induction());
          j[name + "_duplicate"] = figure(s.mean_duplicate());
          j[name + "_repeat_chance"] = figure(s.mean_repeat_chance());
        };
        scores("random", a.random);
        if (a.text) scores("text", *a.text);
        const HeadReach r = head_reach(a, layer, h);
        j["content_channels"] = figure(r.channels);
        j["content_channels_most"] = figure(r.most_channels);
        j["slow_share"] = figure(r.slow_share);
        j["contrast"] = figure(r.contrast);
        j["best_distance"] = r.distance.best;
        j["best_distance_share"] = figure(r.distance.best_share);
        j["previous_by_position"] = figure(r.distance.previous);
        j["sharpest_distance"] = figure(r.sharpest);
        rows.push_back(std::move(j));
      }
  const InductionAnalysis& first = all.front();
  return {
      {"slow_turn", first.slow_turn},
      {"slow_planes", std::ranges::count(slow_planes(first.random.spec, first.random.rotation, first.slow_turn), 1)},
      {"planes", first.random.rotation.frequencies.size()},
      {"window", first.random.window},
      {"random_windows", first.random.windows},
      {"text_windows", first.text ? first.text->windows : 0},
      {"heads", std::move(rows)}};
}

report::Chart step_chart(const std::vector<InductionAnalysis>& all) {
  report::Chart chart;
  chart.title = "Largest score of any head on repeated random tokens";
  chart.x_label = "steps";
  chart.y_label = "share of attention";
  chart.y_min = 0;
  chart.y_max = 1;
  const auto add = [&](const char* label, Score score) {
    report::Series series{.label = label};
    for (const InductionAnalysis& a : all) {
      if (!a.step) continue;
      series.x.push_back(static_cast<double>(*a.step));
      series.y.push_back(best_score(a.random, score));
    }
    chart.series.push_back(std::move(series));
  };
  add("token before", previous);
  add("induction", induction);
  add("same token", duplicate);
  return chart;
}

report::Document make_document(const std::vector<InductionAnalysis>& all, const std::string& title,
                               const std::string& source) {
  const InductionAnalysis& last = all.back();
  report::Document d(title);
  d.paragraph(source);
  d.paragraph(what_was_read(last));
  const bool charts = report::gnuplot_available();
  if (!charts) d.paragraph("gnuplot is not installed, so there are no charts; the tables have the numbers.");
  if (all.size() > 1) {
    d.heading(2, "By step");
    if (charts)
      d.figure({.name = "scores",
                .svg = report::render_svg(step_chart(all)),
                .caption = "A model that copies needs a head that attends to the token before, and in a later layer "
                           "one that attends to what followed the same token."});
    d.table(step_table(all));
  }
  d.heading(2, all.size() > 1 ? "By head, at the last step" : "By head");
  if (charts)
    for (const auto& [name, heading, score] :
         {std::tuple{"previous", "Attention on the token before", &previous},
          std::tuple{"induction", "Attention on what followed the same token", &induction}})
      d.figure({.name = name,
                .svg = report::render_svg(head_map(last.random, heading, score)),
                .caption = "On repeated random tokens; one tile is one head."});
  d.table(head_table(last));
  d.paragraph(fmt::format("Measured with coca {} ({}).", version(), git_commit()));
  return d;
}

}  // namespace coca::analyse

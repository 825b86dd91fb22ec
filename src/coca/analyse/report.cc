// SPDX-License-Identifier: Apache-2.0
#include "coca/analyse/report.h"

#include <algorithm>
#include <cmath>

#include "coca/analyse/charts.h"
#include "coca/analyse/results.h"
#include "coca/base/count.h"
#include "coca/base/version.h"

namespace coca::analyse {

namespace {

// Adds figures, or leaves them out where they cannot be drawn.
class Figures {
 public:
  explicit Figures(report::Document& document) : document_(document) {}
  template <class Drawing>
  void add(const std::string& name, const Drawing& drawing, const std::string& caption) {
    if (drawn_) document_.figure({.name = name, .svg = report::render_svg(drawing), .caption = caption});
  }
  bool drawn() const { return drawn_; }

 private:
  report::Document& document_;
  bool drawn_ = report::gnuplot_available();
};

double anomalous(const HeadStats& s) { return s.all_planes().weighted_anomalous_share(); }
double entropy_share(const HeadStats& s) { return s.attention.mean_entropy_share(); }
double sink(const HeadStats& s) { return s.attention.mean_sink(); }
double departure(const HeadStats& s) { return s.collinear.departure(); }
double zero_t(const HeadStats& s) { return s.collinear.zero_share(); }

// Layer and head with the largest value of a figure; those without one are passed over.
std::string largest_head(const Analysis& a, HeadFigure figure) {
  size_t best = 0;
  double largest = -1;
  for (size_t i = 0; i < a.heads.size(); ++i)
    if (const double value = figure(a.heads[i]); value > largest) {
      largest = value;
      best = i;
    }
  return fmt::format("{} in layer {}, head {}", percent(largest), best / static_cast<size_t>(a.spec.H),
                     best % static_cast<size_t>(a.spec.H));
}

bool is_slack(const Analysis& a) {
  return is_rotary(a) && is_coca(a) && model::collinear_options(a.spec).kind == ops::Collinear::kSlack;
}

std::string anomaly_sentence(const Analysis& a, const AngleStats& all) {
  if (is_coca(a) && !is_slack(a))
    return fmt::format(
        "The largest initial angle in any plane is **{:.1e}** radians: the collinear constraint holds up to rounding.",
        a.all().collinear.largest_angle);
  return fmt::format(
      "In **{}** of pairs and planes the score first rises with distance ({} by weight |q||k|; largest {} by "
      "weight).{}",
      percent(all.anomalous_share()), percent(all.weighted_anomalous_share()), largest_head(a, anomalous),
      is_slack(a) ? " Slack does not constrain this angle; strict and tied do." : "");
}

// Planes whose anomaly has a median beyond the trained length: they rise at every distance the model knows.
std::string tau_sentence(const Analysis& a, const HeadStats& all) {
  size_t longer = 0;
  for (size_t j = 0; j < all.planes.size(); ++j)
    longer += all.planes[j].rising_quantile(0.5, a.rotation.frequencies[j]) >= static_cast<double>(a.spec.max_position);
  if (longer == 0) return "In no plane is the median anomaly longer than the trained length.";
  return fmt::format(
      "In {} the median anomaly is longer than the trained length: there the score rises with every distance seen in "
      "training.",
      longer == all.planes.size() ? "every plane" : fmt::format("{} of {} planes", longer, all.planes.size()));
}

std::string borders_sentence(const Analysis& a) {
  const int64_t largest = a.borders.back().multiple;
  std::string out = fmt::format(
      "At {} times the trained length, planes at unseen angles and full-circle planes compressed, by scaling: ",
      largest);
  for (const ScaledBorders& b : a.borders)
    if (b.multiple == largest)
      out += fmt::format("{}{} {} and {}", out.ends_with(": ") ? "" : "; ", scaling_name(b.scaling), b.unseen_planes(),
                         b.compressed_planes());
  return out + ".";
}

std::string reading_of_text(const Analysis& a) {
  const bool every = a.pairs == a.window * (a.window + 1) / 2;
  return fmt::format("{} of {}; per window and head {} ({}) and {} of {} of attention. Trained length {}.",
                     counted(a.windows, "window"), counted(a.window, "token"), counted(a.pairs, "causal token pair"),
                     every ? "all" : "a seeded sample, drawn evenly", a.rows, counted(a.window - 1, "row"),
                     a.spec.max_position);
}

void add_angles(const Analysis& a, report::Document& d, Figures& figures) {
  d.heading(2, "Initial angles");
  d.paragraph(
      "In each rotary plane the score at distance s is |q||k| cos(angle + s theta). Angles from pi to 2 pi are the "
      "anomaly: the score **rises** with distance for "
      "tau = (2 pi - angle) / theta tokens before it falls.");
  if (is_slack(a)) d.paragraph(slack_note(a));
  d.table(course_table(a));
  figures.add("angles", angle_chart(a),
              "Initial angles of some planes over all heads and pairs. Flat at 1 would be no preference at all; what "
              "lies right of the dashed line rises with distance first.");
  figures.add("anomaly", head_map(a, "Share of |q||k| in the anomaly", anomalous),
              "Each tile is one head, all planes together. 50 % is what angles without preference give; strict and "
              "tied CoCA have 0.");
  d.table(plane_table(a));
  figures.add("tau", tau_chart(a),
              "How long the anomaly lasts among the pairs that have it. Planes above the dashed line rise at all "
              "distances that training showed.");
}

void add_borders(const Analysis& a, report::Document& d, Figures& figures) {
  d.heading(2, "Beyond the trained length");
  d.paragraph(
      "A plane that does not come full circle within the trained length meets angles it never saw when the text gets "
      "longer. Scalings slow planes down: that avoids unseen "
      "angles, but moves neighbouring tokens nearer together, most harmfully in fast planes, which see all angles "
      "anyway.");
  d.table(borders_table(a));
  figures.add("unseen", unseen_chart(a),
              "Without scaling slow planes leave what they know at once. A line at 0 never does.");
  figures.add("compression", compression_chart(a),
              "Position interpolation (linear) slows all planes alike, so neighbours stand closer than ever in "
              "training: it needs tuning. NTK scalings leave the "
              "fastest planes as they are and slow the slowest ones, the only ones that need it.");
  figures.add("far-score", far_score_chart(a),
              "What the sampled pairs would score on average if they stood this far apart, over all heads. Right of "
              "the dashed line lies what training never showed.");
}

void add_attention(const Analysis& a, report::Document& d, Figures& figures) {
  d.heading(2, "Attention");
  d.table(layer_table(a));
  figures.add("score", score_chart(a),
              is_rotary(a)
                  ? "Solid: scores of real keys at that distance. Dashed: the score that the content of all sampled "
                    "pairs would have there; what differs is that near tokens are other tokens than far ones."
                  : "Scores of the keys at that distance, the position's part included.");
  figures.add("distance", distance_chart(a),
              "Each point is the attention on one octave of distances, mean over rows and heads.");
  figures.add("entropy", head_map(a, "Entropy of attention, share of ln(keys)", entropy_share),
              "100 %: a head that looks at everything alike; near 0 %: one that picks a single token.");
  figures.add("sink", head_map(a, "Attention on the first 4 tokens", sink),
              "High tiles are attention sinks: heads that rest on the beginning of the text.");
}

void add_collinear(const Analysis& a, report::Document& d, Figures& figures) {
  d.heading(2, "Collinear constraint");
  figures.add("zero-t", head_map(a, "Share of t that ReLU made zero", zero_t),
              "A plane whose t is zero adds nothing to the score of that key.");
  if (!model::uses_rotary(a.spec.attention)) {
    d.paragraph("Without rotary positions slack and strict scores are the same.");
    return;
  }
  if (!has_collinear_planes(a.spec)) {
    d.paragraph(
        "This model folds t over the whole head and rotates a part of it (the official GPT-NeoX code with partial "
        "rotary): its planes are not collinear, and slack and strict have no common form.");
    return;
  }
  d.paragraph(
      "Slack scores (the official code) depend on where a pair stands, not on its distance alone; strict scores do "
      "not. Both are taken from the same q and t.");
  figures.add("slack", head_map(a, "Strict - slack, rms over rms of strict", departure),
              "How far the slack scores of a head are from strict ones; 100 % stands for all that is larger.");
  d.table(shift_table(a));
  figures.add("shift", shift_chart(a),
              "Both tokens of a pair move by so much, their distance stays: a score that knows distances only would "
              "not change.");
}

}  // namespace

std::string slack_note(const Analysis& a) {
  if (!is_slack(a)) return "";
  if (!has_collinear_planes(a.spec))
    return "Slack is not collinear in this sense. This model is not collinear at all: it folds t over the whole head "
           "and "
           "rotates a part of it, so that both members of a rotated pair come from different numbers.";
  return fmt::format(
      "Slack is not collinear in this sense: a share of anomalous angles near 50 % is not a fault of the model. Slack "
      "keeps one part of the constraint: a key [t, t] with t >= 0 has the same direction in every pair before "
      "rotation. "
      "Its query is q * R_m q, whose pair (q_a, q_b) has an angle of its own that also depends on the position m, so "
      "nothing keeps the angle between query and key below pi. Strict and tied have an angle of 0 and no anomaly. "
      "Slack "
      "can change how far the angles are from 0 (concentration {}; 0: spread evenly, 1: all alike), and thus how long "
      "the anomaly lasts (tau).",
      report::format_number(a.all().all_planes().concentration(), 2));
}

std::vector<std::string> findings(const Analysis& a) {
  std::vector<std::string> out;
  const HeadStats all = a.all();
  if (is_rotary(a)) {
    out.push_back(anomaly_sentence(a, all.all_planes()));
    if (!std::isnan(anomalous(all)) && anomalous(all) > 0) out.push_back(tau_sentence(a, all));
    if (!a.borders.empty()) out.push_back(borders_sentence(a));
  }
  out.push_back(
      fmt::format("Attention has **{}** of the entropy it could have and looks {} tokens back on average; the first "
                  "four tokens get {} of it (largest {}).",
                  percent(entropy_share(all)), report::format_number(all.attention.mean_distance(), 3),
                  percent(sink(all)), largest_head(a, sink)));
  if (has_collinear_planes(a.spec))
    out.push_back(
        fmt::format("Slack scores differ from strict ones by **{}** (rms).", percent(all.collinear.departure())));
  if (is_coca(a)) out.push_back(fmt::format("ReLU made {} of t zero.", percent(all.collinear.zero_share())));
  return out;
}

report::Document make_document(const Analysis& a, const std::string& title, const std::string& source) {
  report::Document d(title);
  d.paragraph(source);
  d.paragraph(reading_of_text(a));
  d.heading(2, "What was found");
  d.list(findings(a));
  Figures figures(d);
  if (!figures.drawn())
    d.paragraph(
        "gnuplot is not installed, so there are no charts; the numbers are all in the tables and in the JSON file.");
  if (is_rotary(a)) {
    add_angles(a, d, figures);
    if (!a.borders.empty()) add_borders(a, d, figures);
  } else {
    d.paragraph(
        fmt::format("A model with attention \"{}\" has no rotary planes: initial angles and borders do not apply.",
                    enum_name(a.spec.attention)));
  }
  add_attention(a, d, figures);
  if (is_coca(a)) add_collinear(a, d, figures);
  d.paragraph(fmt::format("Measured with coca {} ({}).", version(), git_commit()));
  return d;
}

}  // namespace coca::analyse

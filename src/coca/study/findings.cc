// "What was found" (report.h): sentences made from the numbers. With several seeds two figures differ when the 95 %
// interval of their paired difference over seeds excludes zero; it is taken of ln(perplexity), so that it reads as a
// ratio. With one seed there is no interval, and so no verdict.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "coca/base/count.h"
#include "coca/report/table.h"
#include "coca/study/report.h"

namespace coca::study {

namespace {

constexpr size_t kMostNamed = 6;  // in one sentence

using BySeed = std::map<int64_t, double>;

BySeed log_perplexities(const StudyResults& s, const SummaryLine& line, size_t length) {
  BySeed out;
  for (const RunResult& r : s.runs)
    for (const Evaluation& e : r.evaluations)
      if (r.method == line.method && e.variant == line.variant) out[r.seed] = std::log(e.perplexity[length].perplexity);
  return out;
}

enum class Verdict { kSame, kLower, kHigher, kUndecided };

struct Difference {
  SeedMean log_ratio;
  Verdict verdict = Verdict::kUndecided;
};

// ln(a / b) over the seeds that both have.
Difference paired(const BySeed& a, const BySeed& b) {
  std::vector<double> differences;
  for (const auto& [seed, value] : a)
    if (const auto other = b.find(seed); other != b.end())
      differences.push_back(value == other->second ? 0 : value - other->second);
  Difference d{.log_ratio = mean_over_seeds(differences)};
  if (!differences.empty() && std::ranges::all_of(differences, [](double x) { return x == 0; }))
    d.verdict = Verdict::kSame;
  else if (d.log_ratio.n >= 2 && d.log_ratio.high < 0)
    d.verdict = Verdict::kLower;
  else if (d.log_ratio.n >= 2 && d.log_ratio.low > 0)
    d.verdict = Verdict::kHigher;
  return d;
}

// "a", "a and b", "a, b and c", "a, b and 7 others".
std::string and_list(std::vector<std::string> names, size_t most = kMostNamed) {
  if (names.size() > most) {
    const size_t others = names.size() - (most - 1);
    names.resize(most - 1);
    names.push_back(counted(others, "other"));
  }
  std::string out;
  for (size_t i = 0; i < names.size(); ++i) out += (i == 0 ? "" : i + 1 == names.size() ? " and " : ", ") + names[i];
  return out;
}

std::string bold(const SummaryLine& line) { return "**" + line.name() + "**"; }
std::string perplexity_text(const SummaryLine& line, size_t length) {
  return report::format_number(line.points[length].perplexity.mean, 4);
}
std::string multiple_text(const StudyResults& s, size_t length) {
  return fmt::format("{}x", s.config.multiples[length]);
}

// In ascending order of the mean at one length, without lines that are the same model doing the same as an earlier one
// there: dynamic NTK within the trained length.
std::vector<SummaryLine> ranking(const StudyResults& s, const std::vector<SummaryLine>& lines, size_t length) {
  std::vector<SummaryLine> out;
  for (const SummaryLine& line : lines)
    if (std::ranges::none_of(out, [&](const SummaryLine& l) {
          return l.method == line.method &&
                 paired(log_perplexities(s, line, length), log_perplexities(s, l, length)).verdict == Verdict::kSame;
        }))
      out.push_back(line);
  const auto rank = [&](const SummaryLine& line) {  // what is not a number has no place before one
    const double mean = line.points[length].perplexity.mean;
    return std::isnan(mean) ? HUGE_VAL : mean;
  };
  std::ranges::stable_sort(out, {}, rank);
  return out;
}

std::string order_of_one_seed(const StudyResults& s, const std::vector<SummaryLine>& lines, size_t length) {
  std::vector<std::string> parts;
  for (const SummaryLine& line : ranking(s, lines, length))
    parts.push_back(fmt::format("{} {}", bold(line), perplexity_text(line, length)));
  return fmt::format("Perplexity at {} the trained length: {}.", multiple_text(s, length),
                     and_list(std::move(parts), 8));
}

std::string lowest_over_seeds(const StudyResults& s, const std::vector<SummaryLine>& lines, size_t length) {
  const std::vector<SummaryLine> ranked = ranking(s, lines, length);
  const SummaryLine& best = ranked.front();
  std::string out = fmt::format("At {} the trained length **{}** has the lowest mean perplexity ({}).",
                                multiple_text(s, length), best.name(), perplexity_text(best, length));
  std::vector<std::string> above, undecided;
  for (size_t i = 1; i < ranked.size(); ++i) {
    const Verdict v = paired(log_perplexities(s, best, length), log_perplexities(s, ranked[i], length)).verdict;
    (v == Verdict::kLower ? above : undecided).push_back(bold(ranked[i]));
  }
  if (ranked.size() == 1) return out;
  if (undecided.empty()) return out + " The seeds agree that it is below every other.";
  if (above.empty()) return out + " The seeds do not decide between it and any other.";
  return out + fmt::format(" The seeds agree that it is below {}; they do not decide between it and {}.",
                           and_list(above), and_list(undecided));
}

std::string rise_sentence(const StudyResults& s, const SummaryLine& line, size_t last) {
  const Difference d = paired(log_perplexities(s, line, last), log_perplexities(s, line, 0));
  std::string out = fmt::format("{}: from {} at {} to {} at {}, a factor of {}", bold(line), perplexity_text(line, 0),
                                multiple_text(s, 0), perplexity_text(line, last), multiple_text(s, last),
                                report::format_number(std::exp(d.log_ratio.mean), 3));
  if (d.log_ratio.n >= 2)
    out += fmt::format(" (95 % interval {} to {}{})", report::format_number(std::exp(d.log_ratio.low), 3),
                       report::format_number(std::exp(d.log_ratio.high), 3),
                       d.verdict == Verdict::kUndecided ? ": the seeds do not decide whether it rises or falls" : "");
  return out + ".";
}

std::string lengths_text(const StudyResults& s, const std::vector<size_t>& lengths) {
  if (lengths.size() == s.config.multiples.size())
    return lengths.size() == 1 ? "at " + multiple_text(s, 0) : "at every length";
  std::vector<std::string> names;
  for (const size_t i : lengths) names.push_back(multiple_text(s, i));
  return "at " + and_list(names, names.size());
}

std::string ntk_sentence(const StudyResults& s, const SummaryLine& plain, const SummaryLine& scaled, bool one_seed) {
  std::map<Verdict, std::vector<size_t>> at;
  std::vector<std::string> changes;
  for (size_t i = 0; i < scaled.points.size(); ++i) {
    const Difference d = paired(log_perplexities(s, scaled, i), log_perplexities(s, plain, i));
    at[d.verdict].push_back(i);
    if (const double percent = 100 * std::expm1(d.log_ratio.mean); d.verdict != Verdict::kSame)
      changes.push_back(fmt::format("{:+.{}f} % at {}", percent, std::abs(percent) < 1 ? 2 : 0, multiple_text(s, i)));
  }
  const std::string what = fmt::format("Dynamic NTK with factor {} on **{}**", scaled.variant.substr(3), scaled.method);
  if (at[Verdict::kSame].size() == scaled.points.size()) return what + " changes perplexity at no evaluated length.";
  std::vector<std::string> clauses;
  if (one_seed) {
    clauses.push_back(fmt::format("{} changes perplexity by {}", what, and_list(changes, changes.size())));
  } else {
    std::string verb;
    if (!at[Verdict::kLower].empty()) verb += " lowers perplexity " + lengths_text(s, at[Verdict::kLower]);
    if (!at[Verdict::kHigher].empty())
      verb += fmt::format("{} {}", verb.empty() ? " raises perplexity" : " and raises it",
                          lengths_text(s, at[Verdict::kHigher]));
    const std::string undecided = at[Verdict::kUndecided].empty() ? "" : lengths_text(s, at[Verdict::kUndecided]);
    if (verb.empty())
      clauses.push_back(
          fmt::format("{}: the seeds do not decide whether it lowers or raises perplexity {}", what, undecided));
    else
      clauses.push_back(what + verb);
    if (!verb.empty() && !undecided.empty()) clauses.push_back("the seeds do not decide " + undecided);
  }
  if (!at[Verdict::kSame].empty()) clauses.push_back("it changes nothing " + lengths_text(s, at[Verdict::kSame]));
  return fmt::format("{}.", fmt::join(clauses, "; "));
}

// Windows that no test document fills were cut to the documents: their figure is not that of the length in the header.
void add_unreached(const StudyResults& s, std::vector<std::string>& out) {
  std::set<size_t> unreached;
  for (const RunResult& r : s.runs)
    for (const Evaluation& e : r.evaluations)
      for (size_t i = 0; i < e.perplexity.size(); ++i)
        if (!e.perplexity[i].reached) unreached.insert(i);
  if (!unreached.empty())
    out.push_back(
        fmt::format("No test document is as long as the window {}: these perplexities are of shorter windows.",
                    lengths_text(s, {unreached.begin(), unreached.end()})));
}

}  // namespace

std::vector<std::string> findings(const StudyResults& s) {
  std::vector<std::string> out;
  std::set<int64_t> seeds;
  for (const RunResult& r : s.runs) {
    if (!r.failure.empty())
      out.push_back(fmt::format("The training of **{}** was given up: {}.",
                                s.config.seeds.size() > 1 ? fmt::format("{} seed {}", r.method, r.seed) : r.method,
                                r.failure));
    if (!r.evaluations.empty()) seeds.insert(r.seed);
  }
  const std::vector<SummaryLine> lines = summarise(s);
  if (lines.empty()) return out;
  const bool one_seed = seeds.size() < 2;
  out.emplace_back(one_seed ? "One seed: these are its numbers, without a verdict. Another seed may change their order."
                            : "Differences are stated where the seeds agree: where the 95 % interval of the paired "
                              "difference (same seed on both sides, "
                              "logarithm of perplexity) excludes zero.");
  add_unreached(s, out);
  const size_t last = lines[0].points.size() - 1;
  for (const size_t i : last > 0 ? std::vector<size_t>{0, last} : std::vector<size_t>{0})
    out.push_back(one_seed ? order_of_one_seed(s, lines, i) : lowest_over_seeds(s, lines, i));
  for (const SummaryLine& line : lines)
    if (line.variant.empty() && last > 0) out.push_back(rise_sentence(s, line, last));
  for (const SummaryLine& line : lines) {
    if (line.variant.empty()) continue;
    const auto plain =
        std::ranges::find_if(lines, [&](const SummaryLine& l) { return l.method == line.method && l.variant.empty(); });
    if (plain != lines.end()) out.push_back(ntk_sentence(s, *plain, line, one_seed));
  }
  return out;
}

}  // namespace coca::study

// SPDX-License-Identifier: Apache-2.0
#include "coca/study/results.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "coca/base/version.h"
#include "coca/io/csv.h"

namespace coca::study {

namespace {

nlohmann::ordered_json number(double x) { return io::detail::scalar_to_json(x); }

double number_from(const nlohmann::json& object, const char* key) {
  double x = 0;
  io::detail::scalar_from_json(object.at(key), {"study results", key}, x);
  return x;
}

}  // namespace

std::string variant_name(const std::string& method, const std::string& variant) {
  return variant.empty() ? method : method + " + dynamic NTK " + variant.substr(3);
}

namespace {

SummaryPoint point_at(const std::vector<const Evaluation*>& seeds, size_t i) {
  std::vector<double> perplexity, accuracy, digits;
  int64_t trials = 0;
  for (const Evaluation* e : seeds) {
    perplexity.push_back(e->perplexity[i].perplexity);
    if (i >= e->passkey.size()) continue;
    accuracy.push_back(e->passkey[i].accuracy);
    digits.push_back(e->passkey[i].digit_accuracy);
    trials = e->passkey[i].trials;
  }
  return {.length = seeds[0]->perplexity[i].length,
          .perplexity = mean_over_seeds(perplexity),
          .passkey_accuracy = share_over_seeds(accuracy, trials),
          .passkey_digits = share_over_seeds(digits, trials)};
}

// The evaluations of one method and variant, one per seed.
std::vector<const Evaluation*> evaluations_of(const StudyResults& s, const std::string& method,
                                              const std::string& variant) {
  std::vector<const Evaluation*> list;
  for (const RunResult& r : s.runs)
    for (const Evaluation& e : r.evaluations)
      if (r.method == method && e.variant == variant) list.push_back(&e);
  return list;
}

nlohmann::ordered_json to_json(const SeedMean& m) {
  const auto spread = [&](double x) { return m.n > 1 ? number(x) : nlohmann::ordered_json(); };
  return {{"n", m.n},
          {"mean", number(m.mean)},
          {"deviation", spread(m.deviation)},
          {"low", spread(m.low)},
          {"high", spread(m.high)}};
}

nlohmann::ordered_json to_json(const SummaryLine& line) {
  nlohmann::ordered_json points = nlohmann::ordered_json::array();
  for (const SummaryPoint& p : line.points) {
    nlohmann::ordered_json j{{"length", p.length}, {"perplexity", to_json(p.perplexity)}};
    if (p.passkey_accuracy.n > 0) {
      j["passkey_accuracy"] = to_json(p.passkey_accuracy);
      j["passkey_digit_accuracy"] = to_json(p.passkey_digits);
    }
    points.push_back(std::move(j));
  }
  return {{"method", line.method}, {"variant", line.variant}, {"points", std::move(points)}};
}

}  // namespace

std::vector<SummaryLine> summarise(const StudyResults& s) {
  std::vector<SummaryLine> lines;
  for (size_t m = 0; m < s.config.methods.size(); ++m) {
    const std::string& method = s.config.methods[m];
    const auto run = std::find_if(s.runs.begin(), s.runs.end(),
                                  [&](const RunResult& r) { return r.method == method && !r.evaluations.empty(); });
    if (run == s.runs.end()) continue;
    for (const Evaluation& e : run->evaluations) {
      SummaryLine line{.method = method, .variant = e.variant, .method_index = m, .points = {}};
      const auto seeds = evaluations_of(s, method, e.variant);
      for (size_t i = 0; i < e.perplexity.size(); ++i) line.points.push_back(point_at(seeds, i));
      lines.push_back(std::move(line));
    }
  }
  std::stable_partition(lines.begin(), lines.end(), [](const SummaryLine& l) { return l.variant.empty(); });
  return lines;
}

std::string summary_csv(const StudyResults& s) {
  std::vector<std::string> header = {"method", "variant", "length", "n"};
  for (const char* figure : {"perplexity", "passkey_accuracy", "passkey_digit_accuracy"})
    for (const char* part : {"", "_deviation", "_low", "_high"}) header.push_back(std::string(figure) + part);
  std::string out = io::csv_line(header);
  for (const SummaryLine& line : summarise(s))
    for (const SummaryPoint& p : line.points) {
      std::vector<std::string> row{line.method, line.variant, std::to_string(p.length), std::to_string(p.perplexity.n)};
      for (const SeedMean* m : {&p.perplexity, &p.passkey_accuracy, &p.passkey_digits})
        for (const double* x : {&m->mean, &m->deviation, &m->low, &m->high})  // one seed has no deviation, no interval
          row.push_back(m->n > (x == &m->mean ? 0 : 1) ? io::csv_number(*x) : "");
      out += io::csv_line(row);
    }
  return out;
}

nlohmann::ordered_json to_json(const RunResult& r) {
  nlohmann::ordered_json j{{"method", r.method},
                           {"seed", r.seed},
                           {"parameters", r.parameters},
                           {"steps", r.steps},
                           {"tokens", r.tokens},
                           {"skipped", r.skipped},
                           {"train_loss", number(r.train_loss)},
                           {"validation_loss", number(r.validation_loss)},
                           {"seconds", r.seconds},
                           {"tokens_per_second", r.tokens_per_second}};
  if (!r.failure.empty()) j["failure"] = r.failure;
  j["evaluations"] = nlohmann::ordered_json::array();
  for (const Evaluation& e : r.evaluations) {
    nlohmann::ordered_json ppl = nlohmann::ordered_json::array(), key = nlohmann::ordered_json::array();
    for (const PerplexityPoint& p : e.perplexity)
      ppl.push_back({{"length", p.length},
                     {"perplexity", number(p.perplexity)},
                     {"nll", number(p.nll)},
                     {"standard_error", number(p.standard_error)},
                     {"scored_tokens", p.scored_tokens},
                     {"reached", p.reached}});
    for (const PasskeyPoint& p : e.passkey)
      key.push_back({{"length", p.length},
                     {"trials", p.trials},
                     {"correct", p.correct},
                     {"accuracy", number(p.accuracy)},
                     {"low", number(p.low)},
                     {"high", number(p.high)},
                     {"digit_accuracy", number(p.digit_accuracy)}});
    j["evaluations"].push_back({{"variant", e.variant}, {"perplexity", ppl}, {"passkey", key}});
  }
  return j;
}

RunResult run_from_json(const nlohmann::json& j, const std::string& where) {
  try {
    RunResult r;
    r.failure = j.value("failure", "");
    r.method = j.at("method");
    r.seed = j.at("seed");
    r.parameters = j.at("parameters");
    r.steps = j.at("steps");
    r.tokens = j.at("tokens");
    r.skipped = j.at("skipped");
    r.train_loss = number_from(j, "train_loss");
    r.validation_loss = number_from(j, "validation_loss");
    r.seconds = j.at("seconds");
    r.tokens_per_second = j.at("tokens_per_second");
    for (const nlohmann::json& e : j.at("evaluations")) {
      Evaluation evaluation{.variant = e.at("variant"), .perplexity = {}, .passkey = {}};
      for (const nlohmann::json& p : e.at("perplexity"))
        evaluation.perplexity.push_back({p.at("length"), p.at("scored_tokens"), number_from(p, "perplexity"),
                                         number_from(p, "nll"), number_from(p, "standard_error"), p.at("reached")});
      for (const nlohmann::json& p : e.at("passkey"))
        evaluation.passkey.push_back({p.at("length"), p.at("trials"), p.at("correct"), number_from(p, "accuracy"),
                                      number_from(p, "low"), number_from(p, "high"), number_from(p, "digit_accuracy")});
      r.evaluations.push_back(std::move(evaluation));
    }
    return r;
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorKind::kBadFile, "{}: {}", where, error.what());
  }
}

nlohmann::ordered_json to_json(StudyResults& s) {
  nlohmann::ordered_json j{{"coca_version", std::string(version())},
                           {"coca_commit", std::string(git_commit())},
                           {"machine", s.machine},
                           {"corpus", s.corpus},
                           {"seconds", s.seconds},
                           {"config", io::options_to_json(s.config)}};
  nlohmann::ordered_json pairs = nlohmann::ordered_json::array();
  for (const data::Overlap::Pair& pair : s.shared.pairs)
    pairs.push_back({{"training", pair.training}, {"test", pair.evaluation}});
  j["shared_documents"] = {{"count", s.shared.documents}, {"names", std::move(pairs)}};
  j["runs"] = nlohmann::ordered_json::array();
  for (const RunResult& r : s.runs) j["runs"].push_back(to_json(r));
  j["summary"] = nlohmann::ordered_json::array();
  for (const SummaryLine& line : summarise(s)) j["summary"].push_back(to_json(line));
  return j;
}

std::string to_csv(const StudyResults& s) {
  std::string out =
      io::csv_line({"method", "variant", "seed", "length", "perplexity", "nll", "standard_error", "scored_tokens",
                    "passkey_accuracy", "passkey_low", "passkey_high", "passkey_digit_accuracy", "passkey_trials"});
  for (const RunResult& r : s.runs)
    for (const Evaluation& e : r.evaluations)
      for (size_t i = 0; i < e.perplexity.size(); ++i) {
        const PerplexityPoint& p = e.perplexity[i];
        std::vector<std::string> row{r.method,
                                     e.variant,
                                     std::to_string(r.seed),
                                     std::to_string(p.length),
                                     io::csv_number(p.perplexity),
                                     io::csv_number(p.nll),
                                     io::csv_number(p.standard_error),
                                     std::to_string(p.scored_tokens)};
        if (i < e.passkey.size()) {
          const PasskeyPoint& k = e.passkey[i];
          for (const double x : {k.accuracy, k.low, k.high, k.digit_accuracy}) row.push_back(io::csv_number(x));
          row.push_back(std::to_string(k.trials));
        } else {
          row.resize(13);
        }
        out += io::csv_line(row);
      }
  return out;
}

}  // namespace coca::study

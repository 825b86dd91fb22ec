// SPDX-License-Identifier: Apache-2.0
#include "coca/bench/timing.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "coca/base/clock.h"
#include "coca/base/error.h"
#include "coca/base/stop.h"

namespace coca::bench {

namespace {

constexpr double kMostRuns = 100000;

template <typename Combine>
Timing combine(const Timing& a, const Timing& b, const Combine& of) {
  COCA_CHECK_AS(kInternal, a.samples.size() == b.samples.size(), "[bench] {} rounds against {}", a.samples.size(),
                b.samples.size());
  std::vector<double> samples;
  for (size_t i = 0; i < a.samples.size(); ++i) samples.push_back(of(a.samples[i], b.samples[i]));
  return summarise(std::move(samples));
}

double seconds_of(const Contestant& contestant, int64_t runs) {
  const Stopwatch watch;
  for (int64_t i = 0; i < runs; ++i) contestant.run();
  return watch.seconds() / static_cast<double>(runs);
}

// Null where there are none: one round has no spread.
void add_quartiles(nlohmann::ordered_json& to, const std::string& name, const Timing* t) {
  const bool spread = t && t->samples.size() > 1;
  to[name + "_low"] = spread ? nlohmann::ordered_json(t->low) : nlohmann::ordered_json(nullptr);
  to[name + "_high"] = spread ? nlohmann::ordered_json(t->high) : nlohmann::ordered_json(nullptr);
}

}  // namespace

void check_repeats(const RepeatOptions& o) {
  COCA_CHECK(o.repeats >= 1, "repeats is {}; expected at least 1", o.repeats);
  COCA_CHECK(o.warmup >= 0, "warmup is {}; expected at least 0", o.warmup);
  COCA_CHECK(o.sample_seconds >= 0, "sample_seconds is {}; expected at least 0", o.sample_seconds);
}

double quantile(std::vector<double> values, double share) {
  COCA_CHECK_AS(kInternal, !values.empty(), "[bench] no samples");
  std::sort(values.begin(), values.end());
  const double at = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (at - static_cast<double>(below)) * (values[above] - values[below]);
}

Timing summarise(std::vector<double> samples) {
  Timing t{.median = quantile(samples, 0.5), .low = quantile(samples, 0.25), .high = quantile(samples, 0.75)};
  t.samples = std::move(samples);
  return t;
}

double Timing::fastest() const { return *std::ranges::min_element(samples); }

std::string Timing::spread_text() const { return samples.size() < 2 ? "-" : fmt::format("{:.1f} %", 100 * spread()); }

Timing operator+(const Timing& a, const Timing& b) {
  return combine(a, b, [](double x, double y) { return x + y; });
}

Timing ratio_of(const Timing& a, const Timing& b) {
  return combine(a, b, [](double x, double y) { return x / y; });
}

void add_timing(nlohmann::ordered_json& to, const std::string& name, const Timing& t) {
  to[name] = t.median;
  add_quartiles(to, name, &t);
  to["rounds"] = t.samples.size();
}

void add_ratio(nlohmann::ordered_json& to, const std::optional<Timing>& ratio) {
  const nlohmann::ordered_json none(nullptr);
  to["ratio"] = ratio ? nlohmann::ordered_json(ratio->median) : none;
  add_quartiles(to, "ratio", ratio ? &*ratio : nullptr);
}

void add_rates(nlohmann::ordered_json& to, double gflops, double matrix_gflops) {
  to["gflops"] = gflops;
  to["matrix_gflops"] = matrix_gflops;
  to["share_of_matrix_rate"] = gflops / matrix_gflops;
}

int64_t planned_steps(int64_t contestants, const RepeatOptions& o) { return contestants * (o.warmup + o.repeats); }

std::vector<Timing> measure_interleaved(std::span<const Contestant> contestants, const RepeatOptions& o,
                                        ProgressCounter& progress) {
  std::vector<int64_t> runs(contestants.size(), 1);
  std::vector<std::vector<double>> samples(contestants.size());
  for (int64_t round = -o.warmup; round < o.repeats; ++round)
    for (size_t i = 0; i < contestants.size(); ++i) {
      if (stop_requested()) fail(ErrorKind::kInterrupted, "stopped; nothing is saved");
      progress.begin(round < 0 ? "warm-up: " + contestants[i].name : contestants[i].name);
      const double seconds = seconds_of(contestants[i], runs[i]);
      if (round >= 0)
        samples[i].push_back(seconds);
      else if (seconds < o.sample_seconds)
        runs[i] = static_cast<int64_t>(std::ceil(std::min(kMostRuns, o.sample_seconds / std::max(seconds, 1e-9))));
      progress.step(contestants[i].name);
    }
  std::vector<Timing> timings;
  timings.reserve(samples.size());
  for (std::vector<double>& s : samples) timings.push_back(summarise(std::move(s)));
  return timings;
}

}  // namespace coca::bench

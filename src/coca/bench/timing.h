// coca/bench/timing.h - how every benchmark times: warm-up, then rounds in which all contestants run one
// after the other (A B C A B C ...), so that a slow spell of the machine meets them all; medians and
// quartiles over the rounds.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace coca::bench {

struct RepeatOptions {
  int64_t repeats = 7, warmup = 1;
  double sample_seconds = 0.02;

  template <class V>
  void visit(V&& v) {
    v.group("Timing");
    v("repeats", "rounds; each runs everything that is compared once", repeats);
    v("warmup", "rounds before them that do not count; with 0, sample_seconds has no effect", warmup);
    v("sample_seconds", "repeat what is faster than this until a round lasts as long", sample_seconds);
  }
};
void check_repeats(const RepeatOptions&);

// Seconds of one run, or a ratio; one sample per round.
struct Timing {
  double median = 0, low = 0, high = 0;  // low, high: the quartiles
  std::vector<double> samples;

  double spread() const { return median > 0 ? (high - low) / 2 / median : 0; }  // as a share of the median
};
Timing summarise(std::vector<double> samples);
Timing operator+(const Timing& a, const Timing& b);  // round by round
Timing ratio_of(const Timing& a, const Timing& b);   // a / b, round by round: drift cancels
// name, name_low, name_high and rounds; "ratio", "ratio_low", "ratio_high", null where nothing was compared.
void add_timing(nlohmann::ordered_json& to, const std::string& name, const Timing&);
void add_ratio(nlohmann::ordered_json& to, const std::optional<Timing>&);
void add_rates(nlohmann::ordered_json& to, double gflops, double matrix_gflops);  // and the share of the latter

double quantile(std::vector<double> values, double share);  // linear between neighbours

// Steps done of all that are planned, for a progress line.
struct ProgressCounter {
  std::function<void(int64_t done, int64_t total, std::string_view what)> sink;  // may be empty
  int64_t total = 0, done = 0;

  void step(std::string_view what) {
    ++done;
    if (sink) sink(done, total, what);
  }
};

struct Contestant {
  std::string name;
  std::function<void()> run;
};
// One Timing per contestant. Throws Error kInterrupted when asked to stop. Steps: planned_steps().
std::vector<Timing> measure_interleaved(std::span<const Contestant>, const RepeatOptions&, ProgressCounter&);
int64_t planned_steps(int64_t contestants, const RepeatOptions&);

}  // namespace coca::bench
